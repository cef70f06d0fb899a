"""``brain specialists calibrate``: from labelled cases to a certificate in the specialist's folder.

All rows are looked at before any is run, and nothing is written before the certificate is there.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import complain, console, table, write, write_json

if TYPE_CHECKING:
    from specialists.calibration import Calibration, CaseSet
    from specialists.registry import Found

__all__ = ["DESCRIPTION", "EXAMPLE", "SUMMARY", "add_options", "calibrate", "show_certificate"]

SUMMARY = "certify, on labelled cases, how often its accepted answers are wrong"
DESCRIPTION = """\
Runs every rung of the specialist's ladder once on each case, finds the cheapest thresholds under which at most ALPHA of
the accepted answers are wrong, with confidence 1 - DELTA, and writes that as certificate.json into its folder. When the
cases cannot support the claim, it says how many would, writes nothing, and the exit code is 1.

CASES.jsonl holds one JSON object a line: {"input": {arguments}, "expected": value}. "expected": null means that it must
abstain; accepting counts as wrong. "group": "text" puts a case into a group of calls; groups get thresholds of their
own and share DELTA. The cases must be drawn as the calls will be: the certificate speaks of calls like them, and of no
others. They must not have been trained or tuned on.

To claim 1 % at 95 % it takes 299 accepted answers with no error, 1,000 with at most 4, or 5,000 with at most 38, and
somewhat more where there are thresholds to choose."""
EXAMPLE = """brain specialists calibrate ./invoice_total cases.jsonl --alpha 0.02
  brain specialists calibrate sudoku --generate 1000 --seed 7 --out sudoku.json
  brain specialists show ./invoice_total                 the certificate as a sentence"""


def add_options(sub: argparse.ArgumentParser) -> None:
    """Give ``sub`` the options of the command."""
    sub.add_argument("name", metavar="NAME", help="a known name, or ./FOLDER")
    sub.add_argument("file", metavar="CASES.jsonl", nargs="?", help="labelled cases; or --generate")
    sub.add_argument("--alpha", type=_level, default=0.01, metavar="A", help="share of errors (default 0.01)")
    sub.add_argument(
        "--delta", type=_level, default=0.05, metavar="D", help="chance that the claim is wrong (default 0.05)"
    )
    sub.add_argument("--generate", type=_whole, metavar="N", help="have the specialist's own generator make N cases")
    sub.add_argument("--seed", type=_seed, default=0, metavar="S", help="of the generator (default 0)")
    sub.add_argument(
        "--drawn", action="store_true", help="the rows were drawn with replacement: count an input as often as it comes"
    )
    sub.add_argument(
        "--reuse", action="store_true", help="go on although these cases were looked at before; the certificate says so"
    )
    sub.add_argument(
        "--escalation",
        type=_seconds,
        metavar="S",
        help="what asking the big model costs, in CPU seconds of this machine",
    )
    sub.add_argument("--weaker", action="store_true", help="print the weaker promise too: marginal risk")
    sub.add_argument("--out", metavar="FILE", help="write the certificate there, not into the folder")
    sub.add_argument("--dry-run", action="store_true", help="write no certificate")
    sub.add_argument("--threads", type=_threads, metavar="N", help="compute threads of the model (default 1)")


def calibrate(arguments: argparse.Namespace, found: Found, file: Path | None) -> int:
    """Print what was found; exit code 1 when nothing can be certified. ``file``: the cases, readable again."""
    from specialists.calibration import calibrate as run
    from specialists.calibration import gather, marginal_risk
    from specialists.certificates import CERTIFICATE, folder_digest
    from specialists.errors import CannotCertify
    from specialists.evaluation import read_rows
    from specialists.onnx import set_threads

    if arguments.threads is not None:
        set_threads(arguments.threads)
    s, folder = found.specialist, found.folder
    if folder is None and arguments.out is None and not arguments.dry_run:
        return _wrong(f"{s.name} has no folder to put a certificate in; name a file with --out")
    target = Path(arguments.out) if arguments.out else None if folder is None else folder / CERTIFICATE
    if target is not None and not arguments.dry_run and (problem := _cannot_write(target)):
        return _wrong(problem)
    drawn: Any = "generated" if file is None else "drawn" if arguments.drawn else "distinct"
    if file is None:
        assert found.generate is not None
        rows: Any = islice(found.generate(arguments.seed), arguments.generate)
        cases = gather(s, rows, correct=found.correct, drawn="generated", label=f"the generator of {s.name}")
    else:
        rows = read_rows(file, label=arguments.file)
        cases = gather(s, rows, correct=found.correct, drawn=drawn, label=arguments.file)
    if cases.repeated:
        many = f"{cases.repeated:,} row repeats" if cases.repeated == 1 else f"{cases.repeated:,} rows repeat"
        complain(
            f"{many} an input that stands in {arguments.file} before, and what repeats is not counted; --drawn, if the"
            " rows were drawn that way"
        )
    digest = None if folder is None else folder_digest(folder)
    use = _use(found, cases, digest, arguments)
    looked_at = _looked_at(use)
    if looked_at and not arguments.reuse:
        return _wrong(
            f"these cases were looked at {looked_at} time{'s' * (looked_at > 1)} before, so they no longer test what"
            " was changed since; draw new ones, or add --reuse, which the certificate will say"
        )
    try:
        with _progress(len(cases.cases)) as progress:
            result = run(
                s,
                cases,
                alpha=arguments.alpha,
                delta=arguments.delta,
                correct=found.correct,
                drawn=drawn,
                escalation=arguments.escalation,
                folder=digest,
                precision=None if found.card is None else found.card.precision,
                uses=looked_at,
                command=_command(arguments),
                progress=progress,
            )
    except CannotCertify as refusal:
        _count(use)
        if arguments.json:
            reason = {"reason": refusal.reason, "needed": refusal.needed, "message": str(refusal)}
            write_json({"certificate": None, "refused": {_key(refusal.group): reason}, "written": None, "format": 1})
            return 1
        raise
    _count(use)
    written = None if arguments.dry_run else target
    if written is not None:
        result.certificate.write(written)
    weaker = marginal_risk(s, result.observations, arguments.alpha) if arguments.weaker else None
    if arguments.json:
        write_json(_as_json(result, weaker, written))
        return 0
    show_certificate(result.certificate.model_dump(mode="json"), result.certificate.sentence())
    for refused in result.refused.values():
        write(f"no certificate: {refused}")
    if weaker is not None:
        write(weaker.sentence())
    write("not written (--dry-run)" if written is None else f"written to {written}")
    return 0


def show_certificate(data: dict[str, Any], sentence: str) -> None:
    """The certificate on a page: the sentence, the thresholds, and what it holds for."""
    write(sentence)
    rows: list[tuple[Any, ...]] = []
    for group in data["groups"]:
        counts: tuple[Any, ...] = (f"{group['n']:,} of {group['cases']:,}", group["verified"], group["errors"])
        for rung, floors in group["policy"].items():
            told = [_floor(status, floor) for status, floor in floors.items() if floor is not None]
            rows.append((group["group"], rung, "; ".join(told) or "proofs only", *counts))
            counts = ("", "", "")  # they are the group's, not the rung's
    columns = ["group", "rung", "accepts, by what the verifier said", "accepted", "proven", "wrong"]
    table(columns, rows, right=["accepted", "proven", "wrong"])
    where = "no model" if data["provider"] is None else f"{data['provider']}, ONNX Runtime {data['onnxruntime']}"
    where += "" if data["precision"] is None else f", {data['precision']}"
    folder = data["folder"]
    write(f"holds for {where}" + ("" if folder is None else f", the folder with digest {folder[:16]}"))


def _floor(status: str, floor: float) -> str:
    return f"{status}, from confidence {floor:.4g}" if floor else f"{status}, whatever the confidence"


def _as_json(result: Calibration, weaker: Any, written: Path | None) -> dict[str, Any]:
    refused = {
        _key(group): {"reason": each.reason, "needed": each.needed, "message": str(each)}
        for group, each in result.refused.items()
    }
    return {
        "certificate": result.certificate.model_dump(mode="json"),
        "sentence": result.certificate.sentence(),
        "refused": refused,
        "marginal_risk": None if weaker is None else {"alpha": weaker.alpha, "min_confidence": weaker.min_confidence},
        "written": None if written is None else str(written),
        "format": 1,
    }


def _key(group: str | None) -> str:
    return "" if group is None else group


def _command(arguments: argparse.Namespace) -> str:
    words = ["brain", "specialists", "calibrate", arguments.name]
    if arguments.file:
        words.append(arguments.file)
    else:
        words += ["--generate", str(arguments.generate), "--seed", str(arguments.seed)]
    words += ["--alpha", f"{arguments.alpha:g}", "--delta", f"{arguments.delta:g}"]
    return shlex.join([*words, *(["--drawn"] if arguments.drawn else [])])


def _use(found: Found, cases: CaseSet, digest: str | None, arguments: argparse.Namespace) -> Any:
    from specialists.uses import Use

    s = found.specialist
    return Use(cases.sha256, s.name, digest, s.ladder_digest, arguments.alpha, arguments.delta, arguments.escalation)


def _looked_at(use: Any) -> int:
    from specialists.uses import uses_of

    try:
        return uses_of(use)
    except OSError as error:
        complain(f"how often these cases were looked at cannot be told: {error}")
        return 0


def _count(use: Any) -> None:
    from specialists.uses import VARIABLE, count_use

    try:
        count_use(use)
    except OSError as error:
        complain(f"that these cases were looked at cannot be noted: {error}; {VARIABLE} names another folder for it")


def _cannot_write(target: Path) -> str | None:
    """Why ``target`` cannot be written, told before an hour is spent."""
    import os

    if target.is_dir():
        return f"{str(target)!r} is a folder; name a file"
    if not target.parent.is_dir():
        return f"there is no folder {str(target.parent)!r} to write {target.name} into"
    if not os.access(target.parent, os.W_OK):
        return f"{str(target.parent)!r} cannot be written to; name a file elsewhere with --out"
    return None


@contextmanager
def _progress(count: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr while it runs, if somebody is there to see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("", total=count)
        yield lambda done: bar.update(task, completed=done)


def _level(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 0 and 1")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 10_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def _threads(text: str) -> int:
    value = _whole(text)
    if value > 256:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 256 threads; take no more than there are cores")
    return value


def _wrong(sentence: str) -> int:
    complain(sentence)
    return 2
