"""Ten thousand registered specialists: what they cost in memory and time to register, to list and to plan with.

Run: ``python -m tests.benchmarks.registry [--data DIR] [--json] [--quick]``. Each figure comes from a fresh process.
The specialists are real ones: 10,000 functions of their own, in source code that is compiled for the run, with types,
limits, descriptions and docstrings; and 10,000 sealed folders that an installed package brings by name. No model may
be opened on the way. With ``--data`` (a folder with the BFCL v4 files) it is also measured how often the right one of
several hundred tools is among the few that are retrieved; only even ids are looked at.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .report import Row, report

MANY = 10_000
MEGABYTES = 200
MILLISECONDS = 50
CHILD = "--in-a-process-of-its-own"


def words(text: str) -> tuple[str, ...]:
    """The words of a text that reads as a list."""
    return tuple(text.split())


VERBS = words(
    """check classify compare count describe detect estimate extract grade label match measure rank read route score
    sort summarize translate verify"""
)
THINGS = words(
    """address allergy antenna argument bearing blister cargo claim clause complaint crop defect delivery diagnosis
    engine fabric fare fracture harvest invoice journey lease mineral mortgage orchard parcel payslip pension permit
    prescription pump receipt recipe refund rivet rumour sample schedule seal seedling shipment signature sleeper spice
    subsidy tariff ticket timetable voucher weld"""
)
FIELDS = words(
    """airports banking bakeries clinics dairies farms forestry harbours hotels insurance laboratories libraries mining
    museums pharmacies printing railways schools shipyards theatres"""
)

SHAPES = (
    '(text: Annotated[str, Field(description="the {thing} as it was written down", max_length=2000)]) -> str',
    '(text: Annotated[str, Field(description="what is known of the {thing}")], limit: int = 3) -> list[str]',
    "(amount: Annotated[float, Field(gt=0)], currency: Literal['EUR', 'USD', 'GBP'] = 'EUR') -> float",
    '(pages: Annotated[list[str], Field(description="pages about the {thing}", max_length=50)]) -> Classification',
    "(number: int, day: date, urgent: bool = False) -> bool",
)


def wanted(place: int) -> tuple[str, str, str]:
    """Verb, thing and field of the specialist at ``place``, of 20 * 50 * 20."""
    return VERBS[place % 20], THINGS[place // 20 % 50], FIELDS[place // 1000 % 20]


def source_of(places: Sequence[int]) -> str:
    """Python source with a specialist for each of ``places``."""
    parts = ["from datetime import date\nfrom typing import Annotated, Literal\nfrom pydantic import Field\n"]
    parts += ["from specialists import Answer, Classification, OnnxModel, specialist\n"]
    for place in places:
        verb, thing, field = wanted(place)
        shape = SHAPES[place % len(SHAPES)].format(thing=thing)
        parts.append(
            f"\nmodel_{place} = OnnxModel('{verb}_{thing}_{field}.onnx')\n"
            f"@specialist(min_confidence=0.8, timeout=2.0)\nasync def {verb}_{thing}_{field}{shape}:\n"
            f'    """{verb.capitalize()} a {thing} for {field}.\n\n    It was trained on what {field} wrote."""\n'
            f"    return Answer(await model_{place}.run(x={place}), 0.9)\n"
        )
    return "".join(parts)


GIVEN = (
    ": 'it came on Monday, and nobody has looked at it since'",
    ": 'it came on Monday, and nobody has looked at it since'",
    " of 250 EUR",
    " with the pages 'first page' and 'second page'",
    " number 12 of 4 March 2026",
)
"""What a request gives a specialist of each shape."""


def requests(count: int, many: int) -> list[tuple[str, str]]:
    """Requests for one of ``many`` specialists, each with its name. A quarter of them asks for a second thing."""
    chance = random.Random(5)
    made = []
    for number in range(count):
        place = chance.randrange(many)
        verb, thing, field = wanted(place)
        text = f"Please {verb} the {thing} for {field}{GIVEN[place % len(GIVEN)]}"
        if number % 4 == 0:
            other = " ".join(wanted(chance.randrange(many))[:2])
            text += f", and then {other.replace(' ', ' the ')} that came with it"
        made.append((text, f"{verb}_{thing}_{field}"))
    return made


def megabytes() -> float:
    """The most memory this process ever had in RAM, in millions of bytes."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def no_model() -> None:
    """Ends the process if something was loaded that only a model needs."""
    loaded = {"onnxruntime", "numpy", "torch"} & sys.modules.keys()
    if loaded:
        raise SystemExit(f"{', '.join(sorted(loaded))} was imported, though no model was to be opened")


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of ``work``, and what it gave."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


# What is measured, each in a process of its own.


def in_code(count: int, questions: int) -> dict[str, float]:
    """Specialists in code: registered, listed, planned with."""
    from brain import Brain, Planner
    from specialists import Specialist

    chunks = [range(start, min(start + 100, count)) for start in range(0, count, 100)]
    names: dict[str, Any] = {"__name__": "many"}
    declared = 0.0
    for chunk in chunks:
        code = compile(source_of(chunk), "many.py", "exec")
        declared += clocked(lambda code=code: exec(code, names))[0]  # type: ignore[misc]
    made = [each for each in names.values() if isinstance(each, Specialist)]
    assert len(made) == count
    constructed, brain = clocked(lambda: Brain(specialists=made))
    tools = brain._dispatcher.schemas
    listed, texts = clocked(lambda: [(each.name, each.description) for each in made])
    assert len(texts) == count
    planner = Planner()
    asked = requests(questions + 20, count)
    first, _ = clocked(lambda: planner.plan(asked[0][0], tools))
    for text, _ in asked[1:20]:
        planner.plan(text, tools)
    times, right = [], 0
    for text, name in asked[20:]:
        seconds, steps = clocked(lambda text=text: planner.draft(text, tools))  # type: ignore[misc]
        times.append(1000 * seconds)
        right += any(step.tool == name for step in steps)
    times.sort()
    no_model()
    return {
        "megabytes": megabytes(),
        "declared": declared,
        "constructed": constructed,
        "listed": listed,
        "first": 1000 * first,
        "median": statistics.median(times),
        "p99": times[int(0.99 * (len(times) - 1))],
        "right": right / questions,
        "described": float(tools.described),
    }


def write_folders(root: Path, count: int) -> None:
    """``count`` sealed folders, and a distribution whose entry points name them."""
    info = root / "many-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: many\nVersion: 1.0\n")
    lines = []
    for place in range(count):
        name = "_".join(wanted(place))
        files = {
            "__init__.py": b"",
            "code.py": source_of([place]).replace(f"'{name}.onnx'", "'model.onnx'").encode(),
            "model.onnx": b"never opened here",
        }
        folder = root / f"many_{place}"
        folder.mkdir()
        hashes = "".join(f'"{file}" = "{hashlib.sha256(data).hexdigest()}"\n' for file, data in files.items())
        for file, data in files.items():
            (folder / file).write_bytes(data)
        (folder / "specialist.toml").write_text(
            f'format = 1\nname = "{name}"\nversion = "1.0"\ndescription = "{" ".join(wanted(place))}"\n'
            f'function = "code:{name}"\n\n[files]\n{hashes}'
        )
        lines.append(f"{name} = many_{place}\n")
    (info / "entry_points.txt").write_text("[specialists]\n" + "".join(lines))


def listed_folders(count: int, _: int) -> dict[str, float]:
    """``brain specialists list`` over installed folders."""
    from brain.cli import main

    with installed(count), contextlib.redirect_stdout(io.StringIO()) as printed:
        seconds, status = clocked(lambda: main(["specialists", "list", "--json"]))
    assert status == 0
    assert len(json.loads(printed.getvalue())["specialists"]) >= count
    no_model()
    return {"megabytes": megabytes(), "seconds": seconds}


def loaded_folders(count: int, _: int) -> dict[str, float]:
    """A brain made from the names of installed folders: their hashes checked, their code imported."""
    from brain import Brain, Planner

    with installed(count):
        seconds, brain = clocked(lambda: Brain(specialists=["_".join(wanted(place)) for place in range(count)]))
        Planner().plan(requests(1, count)[0][0], brain._dispatcher.schemas)
    no_model()
    return {"megabytes": megabytes(), "seconds": seconds}


@contextlib.contextmanager
def installed(count: int) -> Iterator[None]:
    """A folder on ``sys.path`` in which a package lies that brings ``count`` specialists; written by another process,
    so that its memory is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", __spec__.name, CHILD, "write", str(count), folder], check=True)
        sys.path.insert(0, folder)
        yield


KINDS: dict[str, Callable[[int, int], dict[str, float]]] = {
    "code": in_code,
    "list": listed_folders,
    "load": loaded_folders,
}


def child(arguments: Sequence[str]) -> int:
    """What a process of its own does."""
    kind, count, rest = arguments[0], int(arguments[1]), arguments[2]
    if kind == "write":
        write_folders(Path(rest), count)
    else:
        print(json.dumps(KINDS[kind](count, int(rest))))
    return 0


def run(kind: str, count: int, questions: int = 0) -> dict[str, float]:
    """The figures of one kind, from a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.registry", CHILD, kind, str(count), str(questions)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"})
    if done.returncode:
        raise SystemExit(f"{kind} of {count} failed:\n{done.stderr or done.stdout}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def retrieval(folder: Path) -> Iterator[Row]:
    """How often the right tool is among the best, on the public requests with all their tools in one registry."""
    from brain import Planner
    from brain.catalogue import Catalogue

    from .planner import POSITIVES, load

    cases = [case for name in POSITIVES for case in load(folder, name, "even")]
    tools = Catalogue(tuple({tool.name: tool for case in cases for tool in case.tools}.values()))
    found = [[tools.names[place] for place in tools.best(case.request, 32)] for case in cases]
    note = f"{len(tools)} tools, {len(cases)} requests, even ids"
    for most in (8, 16, 32):
        hits = sum(any(name in (case.truth or {}) for name in names[:most]) for case, names in zip(cases, found))  # noqa: B905
        yield Row(f"right tool among the {most} retrieved", 100 * hits / len(cases), "%", note=note)
    planner = Planner()
    alone = sum(_right(planner.draft(case.request, case.tools), case.truth) for case in cases)
    among = sum(_right(planner.draft(case.request, tools), case.truth) for case in cases)
    yield Row(
        "planner picks the right tool of them all",
        100 * among / len(cases),
        "%",
        against=f"{100 * alone / len(cases):.1f} % of the 1 to 4 tools of the request",
        note=note,
    )


def _right(steps: Sequence[Any], truth: Any) -> bool:
    return len(steps) == 1 and steps[0].tool in (truth or {})


def measure(options: argparse.Namespace) -> Sequence[Row]:
    """All rows."""
    count, questions = (500, 20) if options.quick else (MANY, 400)
    one, many = run("code", 1, 20), run("code", count, questions)
    listed, loaded = run("list", count), run("load", count)
    each = 1e6 * (many["declared"] + many["constructed"]) / count
    kilobytes = 1000 * (many["megabytes"] - one["megabytes"]) / count
    title = f"{count:,} specialists"
    plans = (
        f"{questions} requests, a quarter of them for two things; the right one found in {100 * many['right']:.0f} %"
    )
    rows = [
        Row(
            f"{title} in code, listed and planned with: memory",
            many["megabytes"],
            "MB",
            MEGABYTES,
            "lower",
            f"{one['megabytes']:.0f} MB with one",
            f"{kilobytes:.1f} KB each, schemas made of {many['described']:.0f}",
        ),
        Row("a plan among them, median", many["median"], "ms", MILLISECONDS, "lower", f"{one['median']:.1f} ms", plans),
        Row("a plan among them, p99", many["p99"], "ms", MILLISECONDS, "lower", f"{one['p99']:.1f} ms"),
        Row("the first plan, with the index made", many["first"], "ms", None, "lower", f"{one['first']:.1f} ms"),
        Row("to declare them and make the brain", many["declared"] + many["constructed"], "s", None, "lower",
            note=f"{each:.0f} microseconds each; the brain alone {1000 * many['constructed']:.0f} ms"),
        Row("to list their names and descriptions", 1000 * many["listed"], "ms", None, "lower"),
        Row(f"{count:,} folders, `brain specialists list`: memory", listed["megabytes"], "MB", MEGABYTES, "lower",
            note=f"{listed['seconds']:.1f} s of CPU: every card is read"),
        Row(f"{count:,} folders loaded by name into a brain: memory", loaded["megabytes"], "MB", MEGABYTES, "lower",
            note=f"{loaded['seconds']:.1f} s of CPU: every hash checked, every module compiled and imported"),
    ]  # fmt: skip
    return rows + (list(retrieval(options.data)) if options.data else [])


def main() -> int:
    """The command."""
    if sys.argv[1:2] == [CHILD]:
        return child(sys.argv[2:])
    return report(
        "registry",
        "Ten thousand registered specialists: memory and time to register, list and plan.",
        measure,
        add_arguments=lambda parser: parser.add_argument("--data", type=Path, help="folder with the BFCL v4 files"),
    )


if __name__ == "__main__":
    sys.exit(main())
