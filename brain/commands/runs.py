"""``brain runs``: the runs in a ledger's file, what each is waiting for, and one taken up where it was cut off."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

from .ledger import named_ledger
from .terminal import complain, table, write, write_json

if TYPE_CHECKING:
    from brain import Brain, Ledger
    from brain.storage.changes import RunRow, StepRow

__all__ = ["configure"]

FORMAT = 1
STATES = ("running", "cut off", "done", "failed", "waiting", "uncertain")
LONGEST = 200

_DESCRIPTION = """\
FILE is what Brain(ledger=FILE) keeps; without FILE, $BRAIN_LEDGER names it.

A run is running, done, failed, waiting (for a person's approval), uncertain (a call may have taken effect, and a person
decides), or cut off: its process died. All but the running can be resumed; one that is done gives its result again.
"""
_EPILOG = """\
examples:
  brain runs list bill.db --state cut-off
  brain runs show bill.db RUN                                   its steps, and what a person is asked
  brain runs resume bill.db RUN --app shop:brain --approve ID   go on, and make the call ID
"""
_RESUME = """\
Takes the run up where it was cut off. What was done is not done again.

--app names the application's Brain, as MODULE:ATTRIBUTE. The module is imported, from this folder first, so its code is
run: name only what you would run yourself. Its Brain must keep the same ledger's file. Tools are given no deps here; an
application whose tools want some resumes in its own code, with run(run_id=...).
"""


class Asked(NamedTuple):
    """A call that a person decides of."""

    id: str
    tool: str
    arguments: Any
    why: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.set_defaults(run=lambda arguments: _help(parser), parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, summary: str, run: Any, words: str, description: str | None = None) -> Any:
        sub = commands.add_parser(
            name,
            help=summary,
            description=description or summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.add_argument("words", metavar=words, nargs="*")
        sub.set_defaults(run=run, parser=sub)
        return sub

    listing = command("list", "the runs, the latest first", _list, "FILE")
    listing.add_argument("--tenant", metavar="T", help="only this tenant's")
    names = [state.replace(" ", "-") for state in STATES]
    listing.add_argument("--state", "--status", choices=names, help="only runs of this state")
    listing.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    show = command("show", "one run: its steps, and what a person is asked", _show, "[FILE] RUN")
    show.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    resume = command("resume", "take a run up where it was cut off", _resume, "[FILE] RUN", _RESUME)
    resume.add_argument("--app", metavar="MODULE:BRAIN", required=True, help="the application's Brain; its code is run")
    resume.add_argument("--approve", metavar="ID", action="append", default=[], help="make this call; may be repeated")
    resume.add_argument("--deny", metavar="ID", action="append", default=[], help="go on without it; may be repeated")


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def _list(arguments: argparse.Namespace) -> int:
    ledger, _, problem = named_ledger(arguments.words, 0)
    if ledger is None:
        return _wrong(problem)
    try:
        found = [(run, state_of(ledger, run)) for run in ledger.runs(arguments.tenant)]
    finally:
        ledger.close()
    wanted = None if arguments.state is None else arguments.state.replace("-", " ")
    found = [(run, state) for run, state in found if wanted in (None, state)]
    if arguments.json:
        write_json({"runs": [_as_json(run, state) for run, state in found], "format": FORMAT})
    elif not found:
        write("there are no such runs")
    else:
        table(
            ["run", "state", "tenant", "session", "begun", "ended", "why"],
            [
                (run.id, state, run.tenant, run.session, run.begun[:19], _when(run.ended), _short(run.reason) or None)
                for run, state in found
            ],
        )
    return 0


def _show(arguments: argparse.Namespace) -> int:
    ledger, words, problem = named_ledger(arguments.words, 1)
    if ledger is None:
        return _wrong(f"{problem}; type `brain runs show FILE RUN`")
    try:
        run = ledger.run(words[0])
        steps, state = ledger.steps(run.id), state_of(ledger, run)
        cost = ledger.total(run=run.id)
    finally:
        ledger.close()
    asked = asked_of(run, steps, state)
    if arguments.json:
        write_json(
            {
                **_as_json(run, state),
                "prompt": run.request.get("prompt"),
                "cost": cost.to_json(),
                "steps": [_step_json(step) for step in steps],
                "asked": [each._asdict() for each in asked],
                "output": None if run.result is None else run.result.get("output"),
                "format": FORMAT,
            }
        )
        return 0
    write(f"{run.id}: {state}" + ("" if run.reason is None else f" ({run.reason})"))
    whose = ", ".join(f"{name} {value}" for name, value in (("tenant", run.tenant), ("session", run.session)) if value)
    write(f"begun {_when(run.begun)}, ended {_when(run.ended) or '-'}{', ' + whose if whose else ''}, cost {cost}")
    write(f"asked: {_short(str(run.request.get('prompt')))}")
    if steps:
        table(
            ["step", "name", "effect", "begun", "state", "arguments"],
            [
                (step.step, step.name, step.effect, f"{step.times} x", _step_state(step), _short(_json(step.arguments)))
                for step in steps
            ],
        )
    for each in asked:
        write(f"{each.why}: {each.tool} {_short(_json(each.arguments))}; {_choice(each.id)}")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    from brain import ApprovalRequired, RunUncertain

    ledger, words, problem = named_ledger(arguments.words, 1)
    if ledger is None:
        return _wrong(f"{problem}; type `brain runs resume FILE RUN --app MODULE:BRAIN`")
    try:
        run = ledger.run(words[0])
        state = state_of(ledger, run)
        asked = asked_of(run, ledger.steps(run.id), state)
    finally:
        ledger.close()
    both = {*arguments.approve} & {*arguments.deny}
    if both:
        return _wrong(f"{min(both)!r} is approved and denied")
    approvals = {**dict.fromkeys(arguments.approve, True), **dict.fromkeys(arguments.deny, False)}
    strange = sorted(approvals.keys() - {each.id for each in asked})
    if strange and state in ("waiting", "uncertain", "done"):
        known = ", ".join(each.id for each in asked) or "none"
        return _wrong(f"the run does not ask about {strange[0]!r}; the calls it asks about: {known}")
    brain, problem = _brain(arguments.app)
    if brain is None:
        return _wrong(problem)
    try:
        if brain.ledger.path is None or os.path.realpath(brain.ledger.path) != os.path.realpath(ledger.path or ""):
            kept = "in memory" if brain.ledger.path is None else f"in {brain.ledger.path!r}"
            return _wrong(f"the ledger of {arguments.app} is {kept}, and the run is in {ledger.path!r}")
        try:
            result = brain.run_sync(run_id=run.id, tenant=run.tenant, session=run.session, approvals=approvals or None)
        except (ApprovalRequired, RunUncertain) as error:
            complain(str(error))
            for call in error.pending:
                write(f"{call.tool} {_short(_json(call.arguments))}: {_choice(call.id)}")
            return 1
    finally:
        brain.close()
    write(str(result.output))
    write()
    write(str(result.usage))
    return 0


def _brain(name: str) -> tuple[Brain[Any] | None, str]:
    """The application's Brain, or why there is none. Runs the module's code."""
    from brain import Brain

    module, _, attribute = name.partition(":")
    if not module or not attribute or not all(part.isidentifier() for part in (*module.split("."), attribute)):
        return None, f"--app is MODULE:ATTRIBUTE, such as shop:brain, not {name!r}"
    sys.path.insert(0, os.getcwd())
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            return None, f"there is no module {module!r} in this folder or installed"
        return None, f"the module {module!r} cannot be imported: {error}"
    except Exception as error:  # it is other people's code
        return None, f"the module {module!r} cannot be imported: {type(error).__name__}: {error}"
    found = getattr(loaded, attribute, None)
    if not isinstance(found, Brain):
        what = "has no such attribute" if found is None else f"has a {type(found).__name__} there"
        return None, f"{name!r} is no Brain: the module {what}"
    return found, ""


def state_of(ledger: Ledger, run: RunRow) -> str:
    """How the run stands; ``cut off`` where its process has died."""
    if run.status == "running" and not ledger.is_alive(run.owner):
        return "cut off"
    return run.status


def asked_of(run: RunRow, steps: Sequence[StepRow], state: str) -> list[Asked]:
    """The calls that a person decides of before the run can go on, with the ids that approvals name."""
    if state in ("running", "done"):
        return []
    by_step = {step.step: step for step in steps}
    calls = _calls(run, steps)
    asked = [
        Asked(f"{call['id']}!{step.times}", step.name, step.arguments, "may have taken effect")
        for name, call in calls.items()
        if (step := by_step.get(name)) is not None and step.result is None and step.effect == "once"
    ]
    if state == "waiting":
        waiting = _waiting(run.reason)
        asked += [
            Asked(call["id"], call["name"], call["arguments"], "waits for approval")
            for name, call in calls.items()
            if name not in by_step and (waiting is None or call["name"] in waiting)
        ]
    return asked


def _calls(run: RunRow, steps: Sequence[StepRow]) -> dict[str, dict[str, Any]]:
    """The calls of the last turn that was made, by step; where there is none, those that the history left open."""
    from brain.journal import call_step, history_step, turn_from_json, turn_step
    from brain.messages import unanswered

    turns = {step.step: step for step in steps if step.result is not None and "turn" in step.result}
    last = len(turns) - 1
    if last >= 0 and (step := turns.get(turn_step(last))) is not None:
        _, response = turn_from_json(step.result or {})
        calls = list(response.tool_calls)
        again = len({call.id for call in calls}) < len(calls)  # none of them was run
        made = [] if again else calls
        return {
            call_step(last, place): {"id": call.id, "name": call.name, "arguments": call.arguments}
            for place, call in enumerate(made)
        }
    history = run.request.get("history")
    left = unanswered(history) if isinstance(history, list) else []
    return {
        history_step(place): {"id": call.id, "name": call.name, "arguments": call.arguments}
        for place, call in enumerate(left)
    }


def _waiting(reason: str | None) -> set[str] | None:
    """The tools that the run said it waits for; ``None``: it did not say."""
    head, found, _ = (reason or "").removeprefix("ApprovalRequired: ").partition(" waits for a person")
    return set(head.split(", ")) if found else None


def _as_json(run: RunRow, state: str) -> dict[str, Any]:
    return {
        "run": run.id,
        "state": state,
        "tenant": run.tenant,
        "session": run.session,
        "parent_run": run.parent_run,
        "begun": run.begun,
        "ended": run.ended,
        "reason": run.reason,
    }


def _step_json(step: StepRow) -> dict[str, Any]:
    return {
        "step": step.step,
        "name": step.name,
        "effect": step.effect,
        "times": step.times,
        "state": _step_state(step),
        "key": step.key,
        "begun": step.begun,
        "ended": step.ended,
        "arguments": step.arguments,
    }


def _step_state(step: StepRow) -> str:
    return "in flight" if step.result is None else "committed"


def _choice(id: str) -> str:
    return f"--approve {quote(id)} or --deny {quote(id)}"


def _json(arguments: str | Mapping[str, Any] | None) -> str:
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return json.dumps(dict(arguments), ensure_ascii=False, default=repr)


def _short(text: str | None) -> str:
    words = " ".join((text or "").split())
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def _when(moment: str | None) -> str | None:
    return None if moment is None else moment[:19].replace("T", " ")


def _wrong(sentence: str) -> int:
    complain(sentence)
    return 2
