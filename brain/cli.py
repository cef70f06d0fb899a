"""The command ``brain``: finds the sub-command, runs it, and turns every failure into one sentence and an exit code.

0: done. 1: it failed, or there was no acceptable answer. 2: it was asked in a wrong way. 130: interrupted. What a
sub-command does is in its own module, which is imported only when it is named.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from .commands.terminal import complain, prepare, write

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """A sub-command. Its module has ``configure(parser)``, which sets ``run``: from the arguments to an exit code."""

    name: str
    summary: str
    module: str


COMMANDS = (
    Command("demo", "a real inbox, read by a brain: plans, answers, checks and the bill", "brain.commands.demo"),
    Command("specialists", "list, show, try, make, check and measure specialists", "brain.commands.specialists"),
    Command("ledger", "what was spent: by run, model, specialist, tenant or day; budgets", "brain.commands.ledger"),
    Command("runs", "runs in a ledger's file: list, show, and resume what was cut off", "brain.commands.runs"),
    Command("replay", "a log once more, under its own policy or another on the same calls", "brain.commands.replay"),
    Command("watch", "certificates in service: audits, alarms, and labels from a person", "brain.commands.watch"),
    Command("doctor", "versions, providers, cores, cache, endpoint: is everything here?", "brain.commands.doctor"),
)
"""A new sub-command is a line here and a module."""

_EPILOG = """\
examples:
  brain demo                                   a real inbox, with no key and no network
  brain doctor                                 is everything installed and whole?
  brain specialists list                       which specialists are known
  brain specialists new invoice_total          a folder to make your own from
  brain ledger bill.db --by tenant             what was spent, from the file of Brain(ledger="bill.db")
  brain runs list bill.db                      which runs were done, cut off, or wait for a person
  brain replay calls.jsonl --policy verified   what if only proofs counted, on logged calls?

`brain COMMAND --help` tells more. BRAIN_DEBUG=1 shows the traceback of an error.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    if argv is not None:
        return _guarded(list(argv))
    code = _guarded(sys.argv[1:])
    _leave_if_stuck(code)
    return code


def _guarded(argv: list[str]) -> int:
    prepare()
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse ends this way, after --help too
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read stdout has gone; Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _explain(error)


def _leave_if_stuck(code: int) -> None:
    """End the process at once when a thread is still in a model's run that was given up: Python would wait for it."""
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        waits = frame is None or os.path.basename(frame.f_code.co_filename) == "thread.py"  # in its pool, for work
        if thread is not threading.current_thread() and not thread.daemon and not waits:
            atexit._run_exitfuncs()
            sys.stderr.flush()
            os._exit(code)


def _run(argv: list[str]) -> int:
    parser = _parser(argv)
    arguments, rest = parser.parse_known_args(argv)
    # argparse gives up a list of positionals at the first option; words after it still belong to the list.
    if rest and getattr(arguments, "words", None) is not None and not any(word.startswith("-") for word in rest):
        arguments.words = [*arguments.words, *rest]
    elif rest:
        getattr(arguments, "parser", parser).error(f"unrecognized argument {rest[0]!r}")
    code: int = arguments.run(arguments)
    return code


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="brain",
        description="A general model that plans, small specialist models that answer, every answer checked and priced.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    parser.set_defaults(run=lambda arguments: _version() if arguments.version else _help(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    named = next((word for word in argv if not word.startswith("-")), None)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if command.name == named:
            importlib.import_module(command.module).configure(sub)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence with the remedy, and no page of usage."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see `{self.prog} --help`")
        raise SystemExit(2)


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def _version() -> int:
    from importlib.metadata import PackageNotFoundError, version

    try:
        write(f"brain {version('brain-specialists')}")
    except PackageNotFoundError:
        write("brain (not installed: run from its source)")
    return 0


def _explain(error: Exception) -> int:
    """One sentence on stderr for what went wrong; the exit code."""
    if os.environ.get("BRAIN_DEBUG"):
        import traceback

        traceback.print_exception(error)
    sentence, code = _sentence(error)
    complain(sentence)
    return code


def _sentence(error: Exception) -> tuple[str, int]:
    import specialists

    from . import errors

    asked_wrongly = (
        specialists.CardError,
        specialists.CasesError,
        specialists.DefinitionError,
        specialists.InvalidArguments,
        specialists.ScaffoldError,
        specialists.UnknownSpecialist,
        specialists.UntrustedFolder,
        errors.ConfigurationError,
        errors.PromptError,
        errors.UnknownRun,
    )
    if isinstance(error, asked_wrongly):
        return str(error), 2
    if isinstance(error, specialists.SpecialistError | errors.BrainError):
        return str(error), 1
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError):
        return _system_sentence(error), 2
    if isinstance(error, OSError):
        return _system_sentence(error), 1
    hint = "" if os.environ.get("BRAIN_DEBUG") else "; set BRAIN_DEBUG=1 to see where"
    return f"something unexpected went wrong: {type(error).__name__}: {error}{hint}", 1


def _system_sentence(error: OSError) -> str:
    what = error.strerror or type(error).__name__
    return what if error.filename is None else f"{error.filename!r} cannot be used: {what[:1].lower()}{what[1:]}"


if __name__ == "__main__":
    sys.exit(main())
