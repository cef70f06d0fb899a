"""``brain specialists train``: how a training is asked for, what is shown while it goes on, and what came of it.

What it does is in ``specialists.training``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import complain, console, table, write, write_json

if TYPE_CHECKING:
    from specialists.training.text_classifier import Settings, Trained

__all__ = ["DESCRIPTION", "EXAMPLE", "SUMMARY", "configure"]

SUMMARY = "make a specialist from your own labelled data"

DESCRIPTION = (
    "Makes the folder of a specialist from labelled data: a model, its card with hashes and measured figures, cases,"
    " and a\ncurve of the training. No code is written or run. Each kind of specialist is a sub-command."
)

EXAMPLE = "brain specialists train text-classifier --data messages.tsv --out router"

_CLASSIFIER = """\
Makes a text classifier from your own labelled messages, in minutes on a CPU.

FILE holds one message a line: its label, a tab, the text; .tsv, or .tsv.gz, in UTF-8:

    card_lost<TAB>I lost my wallet, please block my card
    balance<TAB>how much money do I have
    oos<TAB>who won the football yesterday

The label `oos` (or what --out-of-scope names) marks texts that fit no label; they teach it when to abstain, and may be
absent. Two labels or more are needed, and two different texts of each; some dozens of each are better.

A part of the rows is held out, label by label, by chance: it chooses the epoch, the temperature of the confidence and
the floor. Another part is only measured on. Give --validation and --test to use files of your own for these. Texts that
repeat are never on both sides. The floor is the confidence that nine in ten held-out texts reach.

--encoder FOLDER trains a small head over your own sentence encoder in its place: a folder with model.onnx and
tokenizer.json, as optimum or sentence-transformers export it. That takes longer, and tells meaning rather than words.

A checkpoint is written after each epoch and every four minutes. A run that is stopped (Ctrl-C, SIGTERM, a crash) goes
on with the same command and --resume.

What is made passes `brain specialists check`: FOLDER holds specialist.toml, model.onnx, labels.txt, README.md,
cases.jsonl (a few of the held-out texts, word for word, unless --cases is given) and curve.svg. It needs the extra
`train`, and --encoder the extra `encoder`."""

_CLASSIFIER_EXAMPLES = """\
examples:
  brain specialists train text-classifier --data messages.tsv --out router
  brain specialists train text-classifier --data train.tsv.gz --test test.tsv.gz --out router --seed 1
  brain specialists train text-classifier --data messages.tsv --out router --encoder ./all-MiniLM-L6-v2
  brain specialists train text-classifier --data messages.tsv --out router --resume

and then:
  brain specialists check router
  brain specialists try ./router 'where is my parcel?'"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add what can be trained to ``parser``."""

    def show_help(_: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    parser.set_defaults(run=show_help, parser=parser)
    kinds = parser.add_subparsers(title="what is trained", metavar="KIND")
    sub = kinds.add_parser(
        "text-classifier",
        help="a label for a text, from lines of label<TAB>text",
        description=_CLASSIFIER,
        epilog=_CLASSIFIER_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sub.set_defaults(run=_train, parser=sub)
    add = sub.add_argument
    add("--data", type=Path, metavar="FILE", required=True, help="labelled texts, one a line: label<TAB>text")
    add("--out", type=Path, metavar="FOLDER", required=True, help="the folder to make; its last part is the name")
    add("--validation", type=Path, metavar="FILE", help="texts to choose epoch, temperature and floor by")
    add("--test", type=Path, metavar="FILE", help="texts that are only measured on")
    add("--encoder", type=Path, metavar="FOLDER", help="your own sentence encoder: model.onnx and tokenizer.json")
    add("--out-of-scope", metavar="LABEL", default="oos", help="the label of texts that fit none (default oos)")
    add("--name", metavar="NAME", help="the specialist's name, if not the folder's")
    add("--description", metavar="TEXT", help="what it is for: a brain reads it when it chooses a tool")
    add("--text", metavar="TEXT", help='what the text is, such as "The customer\'s message, in English."')
    add("--license", metavar="TEXT", help="for the card")
    add("--source", metavar="TEXT", help="for the card: where the data comes from, and its licence")
    add("--cases", type=Path, metavar="FILE.jsonl", help="cases for the folder, in place of a few held-out texts")
    add("--seed", type=_seed, default=0, metavar="N", help="everything random follows from it (default 0)")
    add("--epochs", type=_whole, metavar="N", help="the most epochs (default: by the number of rows)")
    add("--minutes", type=_minutes, default=45.0, metavar="N", help="the most minutes of training (default 45)")
    add("--threads", type=_whole, default=1, metavar="N", help="compute threads (default 1)")
    again = sub.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the checkpoint in FOLDER, if there is one")
    again.add_argument("--force", action="store_true", help="begin anew in a FOLDER that this command made")
    add("--json", action="store_true", help="print one JSON object in the end, for machines; progress is on stderr")


def _train(arguments: argparse.Namespace) -> int:
    from specialists.training.text_classifier import Settings, train
    from specialists.training.text_watch import Stopped

    given = {name: value for name, value in vars(arguments).items() if name in Settings.__dataclass_fields__}
    settings = Settings(**given)
    try:
        with _watched(arguments.json) as watch:
            trained = train(settings, resume=arguments.resume, force=arguments.force, watch=watch)
    except Stopped as stopped:
        complain(f"{stopped}; what is reached so far is kept, go on with `{settings.command(here=True)} --resume`")
        return 128 + stopped.signal
    if arguments.json:
        write_json(trained.to_json())
    else:
        _show(trained, settings)
    return 0 if trained.passed else 1


@contextmanager
def _watched(as_json: bool) -> Iterator[Any]:
    """What shows the lines and, if somebody is there to see it, a bar on stderr."""
    from specialists.training.text_watch import Watch

    def say(line: str) -> None:
        if as_json:
            complain(line)
        else:
            write(line)
            sys.stdout.flush()

    if not sys.stderr.isatty():
        yield Watch(say=say)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # The bar takes over a stdout that is the same terminal, so that lines and bar do not mix; never one that is a file.
    options: dict[str, Any] = {"transient": True, "refresh_per_second": 4, "redirect_stdout": sys.stdout.isatty()}
    with Progress(*columns, console=console(stderr=True), **options) as bar:
        task = bar.add_task("reading the data", total=None)
        yield Watch(say=say, step=_stepping(bar, task))


def _stepping(bar: Any, task: Any) -> Callable[[str, int, int], None]:
    shown = [""]

    def step(what: str, done: int, of: int) -> None:
        if what != shown[0]:
            shown[0] = what
            bar.reset(task)
        bar.update(task, description=what, completed=done, total=of)

    return step


def _show(trained: Trained, settings: Settings) -> None:
    figures = trained.measured
    if figures is None:
        write("no text was left to measure on; give some with --test FILE")
    else:
        write()
        rows = [
            ("right, floor ignored", f"{_percent(figures.in_scope_accuracy)} of {figures.in_scope:,}"),
            ("its 95 % interval", f"{_percent(figures.accuracy_low)} to {_percent(figures.accuracy_high)}"),
            ("each label counting alike", _percent(figures.accuracy_of_each_label)),
            ("always the most frequent label", _percent(figures.most_frequent_label)),
            ("right, of the accepted in scope", _percent(figures.accepted_right)),
            (f"abstained in scope (floor {trained.floor:g})", _percent(figures.abstained_in_scope)),
            ("abstained out of scope", _percent(figures.abstained_out_of_scope)),
            ("wrong and accepted", f"{figures.wrong_accepted:,} of {figures.n:,}"),
            ("calibration error", _percent(figures.calibration_error)),
        ]
        table(["measured", f"on {trained.measured_on}"], rows)
    for problem in trained.problems:
        write(f"its check fails: {problem}")
    write(
        f"{trained.folder}: the specialist {trained.name}, {trained.labels} labels, model.onnx of"
        f" {trained.bytes:,} bytes, sealed. Next:"
    )
    folder = _as_path(settings.out)
    rows = [
        (f"brain specialists check {folder}", "is it what its card claims?"),
        (f"brain specialists try {folder} 'a text'", "see it answer, or abstain"),
        (f"brain specialists show {folder}", f"its figures; {settings.out / 'README.md'} tells the rest"),
    ]
    table(["type this", "and then"], rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _as_path(folder: Path) -> str:
    text = str(folder)
    return text if "/" in text or "\\" in text else f"./{text}"


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 10,000")
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2,147,483,647")
    return int(text)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of minutes")
    return value
