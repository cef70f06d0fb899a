"""The built-in planner: picks tools for a request and fills their arguments, offline and without any model.

It is not a language model. It compares the words of the request with those of the tools, copies typed arguments out
of the request, feeds one tool's typed answer to another where their schemas fit, and otherwise abstains with the
reason. What a tool answers never changes a plan: the plan is made from the user's words and the tools' schemas alone,
again at every turn, and comes out the same.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any

from .catalogue import Catalogue
from .events import Message, ModelRequest, ModelResponse, Plan, PlanStep, ToolCall, ToolSchema, WireAttempt
from .planning.choosing import THRESHOLD, Proposal, completion, features, propose, score_of
from .planning.clauses import reference_goes_first, refers_back, says_something, split, verb_stems
from .planning.cues import cue
from .planning.extraction import coordinated, extract
from .planning.matching import Profile, fit, profile_of
from .planning.parameters import Parameter
from .planning.patterns import near_miss, patterns
from .planning.references import NoValue, fill, suits
from .planning.spans import Reading
from .plans import write_plan

__all__ = ["THRESHOLD", "Planner"]

_SURE = 0.45
"""An argument found with less confidence gives way to an earlier step's answer that fits well."""
_SUITS = 0.4
_DETOUR = 0.3
"""What a plan with a further tool must be better by."""
_HEARD = 0.3
"""A tool that scores less is no reason to prefer the tool that it could give something to."""
_MAX_STEPS = 8
MANY = 64
"""With more tools than these only the ones that a request speaks of are compared with it (see :mod:`.retrieval`)."""
_CANDIDATES = 12
"""How many tools a request brings; with several clauses, half as many for each, and for them all together."""
_SETS = 4
"""Sets of tools whose index is kept; a brain keeps the one of its own."""


@dataclass(slots=True)
class _Draft:
    """A step in the making."""

    proposal: Proposal
    arguments: dict[str, Any]
    references: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def score(self) -> float:
        figures = features(self.proposal.fit, self.proposal.profile, self.proposal.extraction)
        if self.references and not self.missing:
            figures.update(complete=1.0, share=1.0)
            figures["sure"] = max(figures["sure"], 0.6)
            figures["weakest"] = max(figures["weakest"], 0.5)
        return score_of(figures)


@dataclass(frozen=True, slots=True)
class _Drafted:
    """The steps in the making, their score, and the clauses of the request that none of them does."""

    drafts: list[_Draft]
    score: float
    left_out: Sequence[str] = ()


class Planner:
    """A :class:`~brain.events.ChatModel` that needs no key, no network and no model."""

    announces = True  # all that it sends, which is nothing

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[Catalogue] = []

    @property
    def name(self) -> str:
        """Shown in receipts."""
        return "planner"

    def plan(self, request: str, tools: Sequence[ToolSchema]) -> Plan:
        """The calls that answer ``request``, or none and the reason. The same words and tools give the same plan."""
        return self._plan(request, self._considered(request, tools))

    def _plan(self, request: str, tools: Sequence[ToolSchema]) -> Plan:
        drafted = self._drafts(request, tools)
        drafts, score = drafted.drafts, drafted.score
        if not drafts:
            return Plan((), 0.0, "No tool is registered." if not tools else "The request is empty.")
        for draft in drafts:
            if draft.missing and draft.score >= THRESHOLD:
                return Plan((), score, _needs(draft, Reading(request)))
        if score < THRESHOLD:
            return Plan((), score, _no_fit(drafts[0], Reading(request)))
        if drafted.left_out:
            return Plan((), score, _cannot(drafted.left_out[0], tools))
        return Plan(_steps(drafts), score)

    def draft(self, request: str, tools: Sequence[ToolSchema]) -> tuple[PlanStep, ...]:
        """The calls the planner would make if it could not abstain: for measuring."""
        return _steps(self._drafts(request, self._considered(request, tools)).drafts)

    async def ask(
        self,
        request: ModelRequest,
        *,
        on_attempt: Callable[[WireAttempt], None],
        on_text: Callable[[str], None] | None = None,
    ) -> ModelResponse:
        """The next calls of the plan for the last user message, or, when all are answered, the answer.

        Nothing leaves the process, so ``on_attempt`` is never called.
        """
        turn, text, since = _last_request(request.messages)
        tools = self._considered(text, request.tools)
        plan = self._plan(text, tools)
        if not plan.steps:
            return self._abstain(plan.reason or "No tool fits the request.")
        profiles = {tool.name: profile_of(tool) for tool in tools}
        answers = _answers(since)
        values: dict[int, Any] = {}
        for index, step in enumerate(plan.steps):
            answer = answers.get(_call_id(turn, index))
            if answer is None:
                continue
            if "value" not in answer:
                return self._abstain(f"{step.tool} gave no answer: {_reason(answer)}")
            values[index] = answer["value"]
        calls: list[ToolCall] = []
        for index, step in enumerate(plan.steps):
            if index in values or not all(source in values for source in step.references.values()):
                continue
            try:
                arguments = _filled(step, values, profiles[step.tool])
            except NoValue as problem:
                return self._abstain(str(problem))
            calls.append(ToolCall(_call_id(turn, index), step.tool, json.dumps(arguments, ensure_ascii=False)))
        if calls:
            return ModelResponse(None, tuple(calls), "tool_calls", self.name)
        sentence = _sentence(plan.steps, values)
        if on_text is not None:
            on_text(sentence)
        return ModelResponse(sentence, (), "stop", self.name, value_of=_call_id(turn, len(plan.steps) - 1))

    async def ask_plan(
        self,
        request: ModelRequest,
        *,
        on_attempt: Callable[[WireAttempt], None],
        on_text: Callable[[str], None] | None = None,
    ) -> ModelResponse:
        """The whole plan for the last user message: as text, and as calls with the ids that :meth:`ask` gives them."""
        turn, text, _ = _last_request(request.messages)
        plan = self.plan(text, request.tools)
        if not plan.steps:
            return self._abstain(plan.reason or "No tool fits the request.")
        calls = [
            ToolCall(_call_id(turn, index), step.tool, json.dumps(step.arguments, ensure_ascii=False))
            for index, step in enumerate(plan.steps)
        ]
        return ModelResponse(write_plan(plan), tuple(calls), "tool_calls", self.name)

    def fill(self, step: PlanStep, values: Mapping[int, Any], tools: Sequence[ToolSchema]) -> dict[str, Any]:
        """The arguments of a step of its plans, with those of the earlier steps' ``values`` that it refers to.

        Raises :class:`NoValue` where one of them has nothing that fits.
        """
        tool = next(tool for tool in tools if tool.name == step.tool)
        return _filled(step, values, profile_of(tool))

    def _considered(self, request: str, tools: Sequence[ToolSchema]) -> Sequence[ToolSchema]:
        """All tools, or, of more than :data:`MANY`, those whose names and descriptions the request speaks of.

        Each of several clauses brings its own: a rare word in one of them must not crowd out the others'.
        """
        if len(tools) <= MANY or not request.strip():
            return tools
        catalogue = self._catalogue(tools)
        clauses = split(Reading(request), ())
        if len(clauses) == 1:
            places = set(catalogue.best(request, _CANDIDATES))
        else:
            places = {place for part in (request, *clauses) for place in catalogue.best(part, _CANDIDATES // 2)}
        return [catalogue[place] for place in sorted(places)]

    def _catalogue(self, tools: Sequence[ToolSchema]) -> Catalogue:
        """``tools`` with their index; kept for the last few sets of tools, so that it is made once for each."""
        if isinstance(tools, Catalogue):
            return tools
        with self._lock:
            for place, known in enumerate(self._known):
                if len(known) == len(tools) and all(map(is_, known, tools)):
                    self._known.insert(0, self._known.pop(place))
                    return known
        fresh = Catalogue(tools)
        with self._lock:
            self._known = [fresh, *self._known[: _SETS - 1]]
        return fresh

    def _abstain(self, reason: str) -> ModelResponse:
        return ModelResponse(None, (), "stop", self.name, abstention=reason)

    def _drafts(self, request: str, tools: Sequence[ToolSchema]) -> _Drafted:
        if not tools or not request.strip():
            return _Drafted([], 0.0)
        reading = Reading(request)
        profiles = [profile_of(tool) for tool in tools]
        single = _chain(reading, profiles)
        clauses = split(reading, verb_stems([profile.name for profile in profiles]), _pattern_places(reading, profiles))
        several = _several(reading, clauses, profiles) if len(clauses) > 1 else None
        if several is not None and several.score >= THRESHOLD:
            return several
        parts, place = [], 0
        for clause in clauses:
            place = max(place, request.find(clause, place))
            parts.append((clause, place, place + len(clause)))
            place += len(clause)
        left_out = _left_out(parts, single) if len(clauses) > 1 else []
        # the last tool is what is asked for; those before it only serve it
        score = single[-1].score
        if len(single) == 1 and not single[0].missing:
            proposal = single[0].proposal
            more = coordinated(reading, proposal.profile.parameters, proposal.extraction)
            single = [_Draft(proposal, arguments) for arguments in more] or single
        for draft in single[:-1]:
            score = min(score, 0.7 * single[-1].score + 0.3 * draft.score)
        return _Drafted(single, score, left_out)


def _pattern_places(reading: Reading, profiles: Sequence[Profile]) -> list[tuple[int, int]]:
    """Where values stand that a parameter's own pattern picks out: a full stop in them ends no sentence."""
    found = [patterns(reading, p) for profile in profiles for p in profile.parameters if p.pattern is not None]
    return [(c.start, c.end) for candidates in found for c in candidates]


def _left_out(parts: Sequence[tuple[str, int, int]], drafts: Sequence[_Draft]) -> list[str]:
    """The clauses (with their places in what the drafts were read from) that no draft does anything about."""
    return [
        clause
        for clause, start, end in parts
        if says_something(clause) and not any(_covers(draft, clause, start, end) for draft in drafts)
    ]


def _covers(draft: _Draft, clause: str, start: int, end: int) -> bool:
    """Whether a step does what a clause asks for: it took an argument from there, or is called the same."""
    for name, place in draft.proposal.extraction.chosen.items():
        if name in draft.arguments and start <= place.start < end and place.source != "whole":
            return True
    reading = Reading(clause)
    profile = draft.proposal.profile
    fitting = fit(reading, profile, ())
    return fitting.asked >= 0.5 or (fitting.asked >= 0.3 and fitting.head >= 0.7)


def _chain(reading: Reading, profiles: Sequence[Profile]) -> list[_Draft]:
    """The best tool, after the tools whose answers its missing arguments can come from."""
    proposals = propose(reading, profiles)
    best: tuple[float, list[_Draft]] | None = None
    for proposal in proposals[:4]:
        drafts = _provided(reading, proposal, proposals)
        rank = proposal.rank
        feeble = any(draft.proposal.score < _HEARD for draft in drafts[:-1])
        if len(drafts) > 1 and proposal.extraction.missing and not feeble:
            rank += completion(len(proposal.extraction.missing), proposal.profile) - _DETOUR
        if best is None or rank > best[0]:
            best = (rank, drafts)
    assert best is not None
    return best[1]


def _provided(reading: Reading, best: Proposal, proposals: Sequence[Proposal]) -> list[_Draft]:
    """A tool after those whose answers it lacks, or whose answers are better than what the request seems to give."""
    draft = _draft(best)
    drafts: list[_Draft] = []
    guessed = [p.name for p in best.profile.parameters if p.required and p.name in draft.arguments]
    for name in [*draft.missing, *guessed]:
        parameter = _parameter(best.profile, name)
        options = []
        for other in proposals:
            if other is best or other.extraction.missing or not any(p.required for p in other.profile.parameters):
                continue
            if any(place.source == "whole" for place in other.extraction.chosen.values()):
                continue
            fitting = suits(other.profile.tool.returns, other.profile.name, parameter) if parameter else 0.0
            if name in draft.missing and _share_a_stretch(other, best):
                continue
            if name in guessed and not (
                parameter and fitting >= 0.9 and _knows_better(reading, other, best, parameter)
            ):
                continue
            if fitting >= 0.7:
                options.append((fitting + 0.5 * other.fit.named + 0.3 * other.fit.purpose, other))
        if not options:
            continue
        _, provider = max(options, key=lambda pair: pair[0])
        index = next((i for i, d in enumerate(drafts) if d.proposal.name == provider.name), None)
        if index is None:
            drafts.append(_draft(provider))
            index = len(drafts) - 1
        draft.references[name] = index
        if name in draft.missing:
            draft.missing.remove(name)
        draft.arguments.pop(name, None)
    return [_draft(best)] if draft.missing else [*drafts, draft]


def _share_a_stretch(first: Proposal, second: Proposal) -> bool:
    """Whether two tools took one stretch of the request: it is then an argument of one of them only."""
    return any(
        one.exclusive and other.exclusive and one.start < other.end and other.start < one.end
        for one in first.extraction.chosen.values()
        for other in second.extraction.chosen.values()
    )


def _knows_better(reading: Reading, other: Proposal, best: Proposal, parameter: Parameter) -> bool:
    """Whether the value taken for ``parameter`` is rather an argument of ``other``, whose answer has it by name.

    Not where the request names the parameter beside the value, nor where ``other`` is itself asked by that name.
    """
    place = best.extraction.chosen.get(parameter.name)
    if place is None or place.source in ("pattern", "pair", "option"):
        return False
    if any(p.name == parameter.name for p in other.profile.parameters):
        return False
    if max(cue(reading, place.start, place.end, replace(parameter, described=()), frozenset())) >= 0.5:
        return False
    sure = best.extraction.confidence[parameter.name]
    for name, theirs in other.extraction.chosen.items():
        same = theirs.start < place.end and place.start < theirs.end
        if (same or sure < _SURE) and other.extraction.confidence[name] >= sure:
            return True
    return False


def _several(reading: Reading, clauses: Sequence[str], profiles: Sequence[Profile]) -> _Drafted | None:
    """One step for each clause that a tool fits; a clause that none fits is read together with the one before it."""
    groups: list[list[str]] = []
    proposed: dict[str, list[Proposal]] = {}
    for clause in clauses:
        proposed[clause] = propose(Reading(clause), profiles, whole_text=False)
        fits = any(_worth(p) for p in proposed[clause][:3])
        if groups and not fits:
            groups[-1].append(clause)
        else:
            groups.append([clause])
    if len(groups) < 2 or len(groups) > _MAX_STEPS:
        return None
    drafts: list[_Draft] = []
    left_out: list[str] = []
    for members in groups:
        group = ". ".join(members)
        proposals = proposed.get(group) if drafts else None
        if proposals is None:
            proposals = propose(Reading(group), profiles, whole_text=not drafts)
        draft, best = _best_step(proposals, drafts, reading, group)
        if draft.missing:
            return None
        again = [d for d in drafts if d.proposal.name == draft.proposal.name]
        if again and (
            (best.extraction.missing and not draft.references)
            or any(_same(d.arguments, draft.arguments) for d in again)
        ):
            return None
        drafts.append(draft)
        parts, place = [], 0
        for clause in members:
            parts.append((clause, place, place + len(clause)))
            place += len(clause) + 2
        left_out += _left_out(parts, [draft]) if len(members) > 1 else []
    return _Drafted(drafts, min(draft.score for draft in drafts), left_out) if len(drafts) > 1 else None


def _worth(proposal: Proposal) -> bool:
    """Whether a clause could be a request of its own: its words fit a tool, arguments or not."""
    fit = proposal.fit
    return fit.asked >= 0.4 and (fit.named >= 0.3 or fit.purpose >= 0.3) and fit.head >= 0.3


def _best_step(
    proposals: Sequence[Proposal], earlier: Sequence[_Draft], request: Reading, clause: str
) -> tuple[_Draft, Proposal]:
    """Of the tools proposed for one clause the best, where what it lacks may come from the steps before it."""
    if not earlier:
        return _draft(proposals[0]), proposals[0]
    best: tuple[float, _Draft, Proposal] | None = None
    for proposal in proposals[:4]:
        draft = _draft(proposal)
        lacked = len(draft.missing)
        _borrow(draft, earlier, request, clause)
        rank = proposal.rank + (completion(lacked, proposal.profile) if lacked and not draft.missing else 0.0)
        if best is None or rank > best[0]:
            best = (rank, draft, proposal)
    assert best is not None
    return best[1], best[2]


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two calls of one tool say nothing different: they are then one request told in two clauses."""
    return all(first[name] == second[name] for name in first.keys() & second.keys())


def _draft(proposal: Proposal) -> _Draft:
    return _Draft(proposal, dict(proposal.extraction.arguments), missing=list(proposal.extraction.missing))


def _borrow(draft: _Draft, earlier: Sequence[_Draft], request: Reading, clause: str) -> None:
    """Missing and doubtful arguments from earlier steps' answers, or from the rest of the request."""
    back = refers_back(clause)
    taken: set[tuple[int, str]] = set()
    proposal = draft.proposal
    doubtful = [
        p.name
        for p in proposal.profile.parameters
        if p.required and p.name in draft.arguments and proposal.extraction.confidence[p.name] < _SURE
    ]
    rest = extract(request, proposal.profile.parameters, proposal.profile.own, whole_text=False)
    wanted = []
    for name in [*draft.missing, *doubtful]:
        parameter = _parameter(proposal.profile, name)
        if parameter is None:
            continue
        for index, step in enumerate(earlier):
            fitting = suits(step.proposal.profile.tool.returns, step.proposal.profile.name, parameter)
            wanted.append((fitting + (0.3 if back else 0.1), index, name))
    lacked = set(draft.missing)
    for fitting, index, name in sorted(wanted, key=lambda entry: (entry[2] not in lacked, -entry[0], -entry[1])):
        if name in draft.references or ((index, "") in taken and not (back and name in draft.missing)):
            continue
        if name not in draft.missing and draft.references:
            continue  # a value that was found is not given up while the answer has a place already
        floor = _SUITS if name in draft.missing else 0.75
        reuse = rest.confidence.get(name, 0.0) - 0.1
        if fitting < floor or (name in draft.missing and reuse > fitting):
            continue
        draft.references[name] = index
        taken.add((index, ""))
        draft.arguments.pop(name, None)
        if name in draft.missing:
            draft.missing.remove(name)
    _order(draft, clause)
    for name in list(draft.missing):
        if name in rest.arguments and rest.confidence[name] >= _SURE:
            draft.arguments[name] = rest.arguments[name]
            draft.missing.remove(name)


def _order(draft: _Draft, clause: str) -> None:
    """Which of two alike parameters gets the earlier answer and which the value, by how the clause puts them."""
    parameters = draft.proposal.profile.parameters
    chosen = draft.proposal.extraction.chosen
    for name, index in list(draft.references.items()):
        takes = _parameter(draft.proposal.profile, name)
        called = {t.stem for t in Reading(clause).tokens if t.is_content} - draft.proposal.profile.own
        others = [
            p
            for p in parameters
            if takes and p.name in draft.arguments and p.name in chosen and p.kind == takes.kind and p.is_numeric
            and (p.minimum, p.maximum, p.unit) == (takes.minimum, takes.maximum, takes.unit)
            and p.required == takes.required and called.isdisjoint((*p.words, *takes.words))
        ]  # fmt: skip
        if takes is None or len(others) != 1:
            continue
        first = reference_goes_first(clause, chosen[others[0].name].start)
        if first != (parameters.index(takes) < parameters.index(others[0])):
            draft.arguments[name] = draft.arguments.pop(others[0].name)
            del draft.references[name]
            draft.references[others[0].name] = index


def _parameter(profile: Profile, name: str) -> Parameter | None:
    return next((p for p in profile.parameters if p.name == name), None)


def _steps(drafts: Sequence[_Draft]) -> tuple[PlanStep, ...]:
    return tuple(PlanStep(d.proposal.name, d.arguments, d.references) for d in drafts)


def _needs(draft: _Draft, request: Reading) -> str:
    for name in draft.missing:
        parameter = _parameter(draft.proposal.profile, name)
        nearly = near_miss(request, parameter) if parameter else ""
        if nearly:
            return f"{draft.proposal.name} needs {name!r} {nearly}."
    names = ", ".join(repr(name) for name in draft.missing)
    return f"{draft.proposal.name} needs {names}, which the request does not give."


def _cannot(clause: str, tools: Sequence[ToolSchema]) -> str:
    """Why a part of the request would go undone."""
    reading = Reading(clause)
    best = propose(reading, [profile_of(tool) for tool in tools], whole_text=False)[0]
    part = _shown(" ".join(clause.split()), 100)
    if best.extraction.missing and _worth(best):
        return f"One part of the request cannot be done, {part!r}: {_needs(_draft(best), reading)}"
    return f"No tool does this part of the request: {part!r}."


def _no_fit(draft: _Draft, request: Reading) -> str:
    if draft.missing:
        if any(p.name in draft.missing and near_miss(request, p) for p in draft.proposal.profile.parameters):
            return _needs(draft, request)
        names = ", ".join(repr(name) for name in draft.missing)
        return f"No tool fits the request; the nearest, {draft.proposal.name}, would need {names}."
    return f"No tool fits the request; the nearest is {draft.proposal.name}."


def _last_request(messages: Sequence[Message]) -> tuple[int, str, Sequence[Message]]:
    """The number of user messages, the text of the last ones in a row, and the messages after them."""
    users = [index for index, message in enumerate(messages) if message.get("role") == "user"]
    if not users:
        return 0, "", ()
    last = first = users[-1]
    while first - 1 in users:
        first -= 1
    text = "\n".join(_text(message.get("content")) for message in messages[first : last + 1])
    return len(users), text, messages[last + 1 :]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = (part.get("text") if isinstance(part, Mapping) else part for part in content)
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


def _call_id(turn: int, step: int) -> str:
    return f"call_{turn}_{step}"


def _answers(messages: Sequence[Message]) -> dict[str, Mapping[str, Any]]:
    """What tools answered, by call id. A text that is not the loop's own JSON is a value."""
    found: dict[str, Mapping[str, Any]] = {}
    for message in messages:
        if message.get("role") != "tool":
            continue
        text = _text(message.get("content"))
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        known = isinstance(answer, dict) and {"value", "error", "abstained", "denied"} & answer.keys()
        found[str(message.get("tool_call_id"))] = answer if known else {"value": text}
    return found


def _reason(answer: Mapping[str, Any]) -> str:
    for key in ("error", "abstained", "denied"):
        if key in answer:
            return str(answer[key]) or key
    return "no reason given"


def _filled(step: PlanStep, values: Mapping[int, Any], profile: Profile) -> dict[str, Any]:
    arguments = dict(step.arguments)
    for name, source in step.references.items():
        parameter = _parameter(profile, name)
        try:
            arguments[name] = values[source] if parameter is None else fill(values[source], parameter)
        except NoValue:
            raise NoValue(
                f"The answer of step {source + 1} has nothing that {step.tool} can take as {name!r}."
            ) from None
    return arguments


def _sentence(steps: Sequence[PlanStep], values: Mapping[int, Any]) -> str:
    parts = [f"{step.tool} answered {_shown(values[index])}." for index, step in enumerate(steps)]
    return " ".join(parts)


def _shown(value: Any, limit: int = 400) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"
