"""``brain specialists``: list, show, try, new, train, check, eval, calibrate, seal and pack.

What they do is in the package ``specialists``; here is only how it is asked for and shown. ``list``, ``show`` and
``check`` run no code of a folder or of an installed package without ``--trust``. Commands that cannot do without it
(``try``, ``eval``, ``calibrate``, ``pack``) run it, since the folder was named for that, and a line on stderr says so.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import calibrate as calibrating
from . import pack as packing
from . import train as training
from .terminal import complain, console, mark, table, write, write_json

if TYPE_CHECKING:
    from specialists.evaluation import Evaluation
    from specialists.registry import Found

__all__ = ["configure"]

MOST_THREADS = 256

_TRUST = """
The code of a folder named here is run with your rights: name only folders that you trust. A folder without code (its
card names a task) has its model run in a limited child process unless --trust is given."""

_NO_TRUST = """
No code of the folder is run without --trust; what cannot be said without it is named."""

_DOC = {
    "list": (
        "the specialists known by name",
        "Lists what is bundled and what installed packages bring. No code of theirs is run.",
        "brain specialists list",
    ),
    "show": (
        "card, declarations, types, files and measured figures of one",
        "Shows what a specialist claims: its card, its verifier and floor, its types, and whether each file is the one"
        " the card names.\nNAME is a known name, or the path of a folder (with a separator: ./NAME). The types and the"
        " verifier of what is not\nbundled stand in its code." + _NO_TRUST,
        "brain specialists show sudoku",
    ),
    "try": (
        "ask one question and see each attempt",
        "Climbs the specialist's own ladder for one question. ARGS are name=value pairs, or one JSON object, or, for a"
        " specialist\nwith one parameter, the plain value. Exit code 1 when it abstains." + _TRUST,
        "brain specialists try intent 'my card was stolen'\n"
        "  brain specialists try ./quadratic b=-5 c=6\n"
        """  brain specialists try ./quadratic '{"b": -5, "c": 6}'""",
    ),
    "new": (
        "write a folder to make your own from",
        "Writes the folder NAME: a specialist that works as it stands, with a small model, a verifier, cases, a card"
        " and tests,\nand every part to fill in marked FILL IN. The folder is also an installable Python project.",
        "brain specialists new invoice_total",
    ),
    "check": (
        "is a folder what its card claims?",
        "Looks at the card, the hashes and the code, solves the folder's cases.jsonl, and tries the verifier on answers"
        " known to be wrong.\nOne wrong answer that passes refutes a claim of soundness; one right answer that fails,"
        " of completeness. Exit code 1 then." + _NO_TRUST,
        "brain specialists check invoice_total --trust",
    ),
    "eval": (
        "measure one on a file of labelled rows",
        'FILE holds one JSON object a line: {"input": {arguments}, "expected": value}. "expected": null means that it\n'
        "must abstain; accepting counts as wrong then. A card that names a function `correct` judges by it, and\n"
        '"expected" may be absent. Rows are run one after the other by the same ladder that live calls climb.'
        + _TRUST
        + """

what is printed (--json: one object with these names):
  n                    rows
  accepted             answers accepted
  correct              accepted and right
  right                the right value, accepted or not
  wrong_accepted       accepted and wrong, or accepted where an abstention was expected
  abstained            rows without an accepted answer, rightly or not: n - accepted
  accuracy             correct / n, with accuracy_low and accuracy_high, the 95 % interval (Wilson);
                       an abstention is never `correct`, so rows with "expected": null lower it
  in_scope_accuracy    best answer with the floor ignored: right / rows that expect an answer
  steps_mean           steps of a row's attempts together, averaged over the rows that told theirs
  ms_p50, ms_p99       milliseconds a call took; the model is opened before the clock runs
  rejected             of the abstained: arguments that the types refused, so that no model was asked
  out_of_scope         rows with "expected": null; out_of_scope_abstained of them were abstained from""",
        "brain specialists eval sudoku puzzles.jsonl --json",
    ),
    "seal": (
        "write the hashes of a folder's files into its card",
        "Run it after each change of a file: a specialist whose files are not the ones its card names is refused.\n"
        "A model that the card takes from a bundled specialist is left as named without --model, since the card's"
        " figures were\nmeasured with it. It runs no code.",
        "brain specialists seal invoice_total",
    ),
    "calibrate": (calibrating.SUMMARY, calibrating.DESCRIPTION + _TRUST, calibrating.EXAMPLE),
    "pack": (packing.SUMMARY, packing.DESCRIPTION + _TRUST, packing.EXAMPLE),
    "train": (training.SUMMARY, training.DESCRIPTION, training.EXAMPLE),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``."""
    parser.description = "Specialists: small models, each good at one thing, with every answer checked."

    def show_help(_: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    parser.set_defaults(run=show_help, parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        summary, description, example = _DOC[name]
        sub = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.add_argument("--json", action="store_true", help="print one JSON object, for machines")
        sub.set_defaults(run=run, parser=sub)
        return sub

    def trust(sub: argparse.ArgumentParser, what: str) -> None:
        sub.add_argument("--trust", action="store_true", help=f"you have read the folder: {what}")

    add("list", _list)
    sub = add("show", _show)
    sub.add_argument("name", metavar="NAME", help="a known name, or ./FOLDER")
    trust(sub, "run its code, to show its types and what it declares")
    sub = add("try", _try)
    trust(sub, "run the model of a folder without code in this process")
    sub.add_argument("name", metavar="NAME", help="a known name, or ./FOLDER")
    sub.add_argument("words", metavar="ARGS", nargs="*", help="name=value pairs, one JSON object, or one plain value")
    add("new", _new).add_argument("folder", metavar="NAME", help="the folder to write; its last part is the name")
    sub = add("check", _check)
    sub.add_argument("folder", metavar="FOLDER")
    trust(sub, "run its code, to try its answers and its verifier")
    sub = add("eval", _eval)
    trust(sub, "run the model of a folder without code in this process")
    sub.add_argument("name", metavar="NAME_OR_FOLDER", help="a known name, or ./FOLDER")
    sub.add_argument("file", metavar="FILE.jsonl")
    sub.add_argument(
        "--timeout", type=_seconds, metavar="S", help="seconds for one row, in place of the specialist's own limit"
    )
    sub.add_argument("--threads", type=_threads, metavar="N", help="compute threads of the model (default 1)")
    sub.add_argument("--max-steps", type=_whole, metavar="N", help="the most steps of any attempt")
    sub.add_argument("--declared", action="store_true", help="by what the code or card declares, without a certificate")
    sub = add("calibrate", _calibrate)
    trust(sub, "run the model of a folder without code in this process")
    calibrating.add_options(sub)
    sub = add("seal", _seal)
    sub.add_argument("folder", metavar="FOLDER")
    sub.add_argument("--model", action="store_true", help="name the bundled model anew that the card takes")
    packing.add_options(add("pack", _pack))
    training.configure(add("train", _list))


def _list(arguments: argparse.Namespace) -> int:
    from specialists.card import read_card
    from specialists.errors import SpecialistError
    from specialists.registry import folder_of, names

    entries: list[dict[str, Any]] = []
    for name, source in names().items():
        entry: dict[str, Any] = {"name": name, "source": source, "version": None, "description": None, "folder": None}
        try:
            folder = folder_of(name)
            if folder is not None:
                card = read_card(folder)
                entry |= {"version": card.version, "description": card.description, "folder": str(folder)}
        except SpecialistError as error:
            entry["description"] = f"broken: {error}"
        entries.append(entry)
    if arguments.json:
        write_json({"specialists": entries, "format": 1})
    elif entries:
        table(
            ["name", "version", "from", "what it does"],
            [(each["name"], each["version"], each["source"], each["description"]) for each in entries],
        )
    else:
        write("no specialist is known yet; `brain specialists new NAME` writes a folder to make one from")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from .show import show

    return show(arguments.name, as_json=arguments.json, trust=arguments.trust, before_code=_say_trusted)


def _try(arguments: argparse.Namespace) -> int:
    found = _find(arguments.name, arguments.trust)
    s = found.specialist
    given = _arguments(found, arguments.words)
    outcome = s.solve_sync(**given)
    if arguments.json:
        write_json(outcome.to_json())
        return 0 if outcome.accepted else 1
    from specialists.ladder import jsonable

    table(
        ["rung", "by", "outcome", "confidence", "verdict", "steps", "ms", "reason"],
        [
            (
                attempt.rung,
                attempt.source,
                attempt.outcome,
                None if attempt.confidence is None else f"{attempt.confidence:.3f}",
                None if attempt.verdict is None else attempt.verdict.status,
                attempt.steps,
                f"{1000 * attempt.seconds:.1f}",
                attempt.reason or (attempt.verdict.reason if attempt.verdict else None),
            )
            for attempt in outcome.attempts
        ],
        right=["confidence", "steps", "ms"],
    )
    if (state := outcome.certificate) is not None and state.status in ("void", "revoked"):
        write(f"certificate: {state.status}: {state.reason}")
    if not outcome.accepted:
        write(f"abstained: {outcome.reason}")
        return 1
    write(f"answer: {_shown(jsonable(outcome.value))}")
    write(f"accepted by: {outcome.accepted_by} (answered by {outcome.answered_by})")
    return 0


def _new(arguments: argparse.Namespace) -> int:
    from specialists.scaffold import create

    folder = Path(arguments.folder)
    card = create(folder)
    if arguments.json:
        write_json({"name": card.name, "folder": str(folder), "files": sorted(card.files), "format": 1})
        return 0
    write(f"{folder}: the specialist {card.name}, which works as it stands. Next:")
    table(
        ["type this", "and then"],
        [
            (f"brain specialists check {folder} --trust", "it passes"),
            (f"brain specialists try {_as_path(folder)} b=-5 c=6", "see it answer"),
            (f"edit {folder}/specialist.py", "every part to fill in is marked FILL IN; so too in the card and README"),
            (f"brain specialists seal {folder}", "after each change; then check again"),
            (f"pip install {_as_path(folder)}", f"specialists.load({card.name!r}) finds it"),
        ],
    )
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from specialists.checking import check

    folder = _folder(arguments.folder)
    report = check(folder, trust=arguments.trust, before_code=lambda: _say_trusted(_as_path(folder)))
    if arguments.json:
        write_json(report.to_json())
        return 0 if report.passed else 1
    for finding in report.findings:
        write(f"{mark(finding.status)} {finding.what}: {finding.detail}")
        if finding.remedy:
            write(f"    {finding.remedy}")
    failed = sum(finding.status == "failed" for finding in report.findings)
    write()
    if not report.passed:
        write(f"{folder} does not pass: {failed} of the above failed.")
    elif report.complete:
        write(f"{folder} passes.")
    else:
        write(f"{folder} passes as far as it was looked at; add --trust, once you have read it, for the rest.")
    return 0 if report.passed else 1


def _seal(arguments: argparse.Namespace) -> int:
    from specialists.card import read_card, seal
    from specialists.errors import ModelRejected
    from specialists.registry import model_digest, verify_model

    folder = _folder(arguments.folder)
    card = read_card(folder)
    card = seal(folder, model=model_digest(card.model.name) if arguments.model and card.model is not None else None)
    try:
        verify_model(card)
    except ModelRejected as error:
        complain(str(error))
    if arguments.json:
        write_json({"name": card.name, "folder": str(folder), "files": card.files, "format": 1})
    else:
        write(f"{folder}: the card of {card.name} now lists {len(card.files)} files")
    return 0


def _pack(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments.folder)
    return packing.pack(arguments, folder, lambda: _say_trusted(_as_path(folder)))


def _eval(arguments: argparse.Namespace) -> int:
    from specialists.evaluation import check_row, evaluate, read_rows
    from specialists.onnx import set_threads

    if arguments.threads is not None:
        set_threads(arguments.threads)
    with _regular(Path(arguments.file)) as path:
        found = _find(arguments.name, arguments.trust)
        if arguments.declared:
            found = found._replace(specialist=found.specialist.with_certificate(None))
        count = 0
        for row in read_rows(path, label=arguments.file):
            check_row(row, found.specialist, found.correct, f"{arguments.file}, line {row.line}")
            count += 1
        if not count:
            return _wrong(f"{arguments.file} holds no rows")
        rows = read_rows(path, label=arguments.file)
        result = _with_progress(
            count,
            lambda progress: evaluate(
                found.specialist,
                rows,
                correct=found.correct,
                timeout=arguments.timeout,
                max_steps=arguments.max_steps,
                progress=progress,
            ),
        )
    if arguments.json:
        write_json(result.to_json())
    else:
        _show_evaluation(result, found.specialist.name, arguments.file)
    return 0


def _calibrate(arguments: argparse.Namespace) -> int:
    if (arguments.file is None) == (arguments.generate is None):
        return _wrong("give either CASES.jsonl or --generate N")
    if arguments.file is None:
        found = _find(arguments.name, arguments.trust)
        if found.generate is None:
            return _wrong(f"{found.specialist.name} brings no generator (the card's key `generate`); give CASES.jsonl")
        return calibrating.calibrate(arguments, found, None)
    with _regular(Path(arguments.file)) as path:
        return calibrating.calibrate(arguments, _find(arguments.name, arguments.trust), path)


def _show_evaluation(result: Evaluation, name: str, file: str) -> None:
    data = result.to_json()
    for share in ("accuracy", "accuracy_low", "accuracy_high", "in_scope_accuracy"):
        data[share] = None if data[share] is None else f"{100 * data[share]:.2f} %"
    for number in ("steps_mean", "ms_p50", "ms_p99"):
        data[number] = None if data[number] is None else f"{data[number]:.2f}"
    del data["format"]
    table([name, file], data.items(), right=[file])
    if result.doubts:
        table(
            ["abstained because", "rows", "for example"],
            [(kind, count, reason) for kind, (count, reason) in result.doubts.items()],
            right=["rows"],
        )


def _with_progress(count: int, run: Callable[[Callable[[Evaluation], None] | None], Evaluation]) -> Evaluation:
    """A bar on stderr while it runs, if somebody is there to see it."""
    if not sys.stderr.isatty():
        return run(None)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=count)

        def show(so_far: Evaluation) -> None:
            bar.update(task, completed=so_far.n, description=f"{so_far.correct} correct")

        return run(show)


@contextmanager
def _regular(path: Path) -> Iterator[Path]:
    """``path``, or a copy when it can be read only once: rows are all looked at before any is run."""
    if path.is_file() or path.is_dir() or not path.exists():
        with path.open("rb"):  # a missing file is told before anything else is done
            pass
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="brain-eval-") as folder:
        copy = Path(folder) / "rows.jsonl"
        with path.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield copy


def _find(name: str, trust: bool) -> Found:
    from specialists.card import read_card, verify_files
    from specialists.registry import find, is_path

    if is_path(name):  # nothing is said to run of a folder that will be refused
        card = read_card(Path(name).resolve())
        verify_files(Path(name).resolve(), card)
        if card.task is not None:
            return find(name, trust)
    _say_trusted(name)
    return find(name, trust=True)


def _say_trusted(name: str) -> None:
    from specialists.registry import is_path

    if is_path(name) and Path(name).is_dir():
        complain(f"running the Python code in {name}, as you named this folder")


def _folder(text: str) -> Path:
    from specialists.errors import CardError
    from specialists.registry import folder_of, is_path, names

    folder = Path(text)
    if not folder.is_dir():
        known = folder_of(text) if not is_path(text) and text in names() else None
        hint = f"; the specialist of that name lies in {known}" if known is not None else ""
        raise CardError(f"there is no folder {text!r}{hint}")
    return folder


def _arguments(found: Found, words: list[str]) -> dict[str, Any]:
    """What the words of the command line say, as checked arguments. Raises ``InvalidArguments``."""
    from specialists.errors import InvalidArguments

    signature = found.specialist.signature
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise InvalidArguments(f"{signature.name}: {word!r} is not UTF-8 text") from None
    properties: dict[str, Any] = signature.schema["properties"]
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            json.loads(words[0])
        except ValueError as error:
            if len(properties) != 1:
                raise InvalidArguments(f"{signature.name}: the arguments are not JSON: {error}") from None
        else:
            return signature.check_json(words[0])
    pairs = [word.partition("=") for word in words]
    if all(equals and name.isidentifier() for name, equals, _ in pairs) and (
        len(properties) != 1 or len(words) != 1 or pairs[0][0] in properties
    ):
        names = [name for name, _, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidArguments(f"{signature.name}: {twice!r} is given twice")
        return signature.check({name: _value(text, properties.get(name, {})) for name, _, text in pairs})
    if len(properties) == 1 and len(words) == 1:
        ((name, schema),) = properties.items()
        return signature.check({name: _value(words[0], schema)})
    wanted = " ".join(f"{name}=..." for name in properties) or "no arguments"
    quote = "; put quotes around a value with spaces" if len(words) > 1 else ""
    raise InvalidArguments(f"{signature.name}: give its arguments as {wanted}, or as one JSON object{quote}")


def _value(text: str, schema: dict[str, Any]) -> Any:
    """A word as a value: text where text is wanted, else JSON where it is JSON."""
    if schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _as_path(folder: Path) -> str:
    text = "./" if folder == Path() else str(folder)
    return text if "/" in text or "\\" in text else f"./{text}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _wrong(sentence: str) -> int:
    complain(sentence)
    return 2


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def _threads(text: str) -> int:
    # ONNX Runtime starts as many threads as it is told to, and many thousands take minutes before the first row.
    value = _whole(text)
    if value > MOST_THREADS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is more than {MOST_THREADS} threads; take no more than there are cores"
        )
    return value


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)
