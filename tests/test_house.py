"""The house: which way imports run, what an import costs, and that what is public is written down."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from specialists import read_card

ROOT = Path(__file__).parents[1]

HOUSE = {
    # From the roof down: a room may import from its own and from those below it.
    "specialists": [
        "training",
        "zoo",
        "scaffold",
        "checking",
        "corruptions",
        "quantizing",
        "uses",
        "calibration",
        "thresholds",
        "evaluation",
        "registry",
        "tasks",
        "sources",
        "define",
        "answers",
        "certificates",
        "voting",
        "auditing",
        "comparing",
        "climb",
        "ladder",
        "verifiers",
        "recursion",
        "isolation",
        "onnx",
        "sessions",
        "trials",
        "joining",
        "graph_cache",
        "batching",
        "calls",
        "model_files",
        "graph_check",
        "card",
        "files",
        "workers",
        "signatures",
        "texts",
        "adapters",
        "loops",
        "breaker",
        "metering",
        "strict_json",
        "watching",
        "statistics",
        "costs",
        "runtime",
        "errors",
    ],
    "brain": [
        "cli",
        "commands",
        "demo",
        "testing",
        "scaling",
        "agent",
        "plan_tree",
        "graph",
        "turns",
        "calling",
        "resuming",
        "showing",
        "runs",
        "offering",
        "cleaning",
        "tidying",
        "savings",
        "dispatch",
        "rungs",
        "asking",
        "planner",
        "plans",
        "planning",
        "catalogue",
        "retrieval",
        "words",
        "models",
        "wire",
        "questions",
        "tooling",
        "conversations",
        "messages",
        "context",
        "folding",
        "exchanges",
        "previews",
        "handles",
        "results",
        "replaying",
        "journal",
        "books",
        "describing",
        "ledger",
        "budgets",
        "outcome_log",
        "receipts",
        "storage",
        "prices",
        "logs",
        "keys",
        "events",
        "encoding",
        "errors",
    ],
}

PUBLIC = ["specialists", "brain", "brain.scaling", "brain.testing"]

HEAVY = {
    "aiohttp",
    "onnxruntime",
    "openai",
    "numpy",
    "rich",
    "httpx2",
    "tenacity",
    "genai_prices",
    "jsonschema",
    "torch",
    "onnx",
}


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its full name; a package's face is called as the package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path) -> Iterator[str]:
    """The names that a module imports at any depth, functions included; what only type checkers read is left out."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    waiting: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imported_modules(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ``known`` that a module imports; a name from a package's face counts as its face."""
    targets = set()
    for target in imports(name, path):
        while target and target not in known:
            target = target.rpartition(".")[0]
        targets.add(target)
    return targets - {"", name}


def room(name: str) -> str:
    return name.split(".")[1]


def test_specialists_know_nothing_of_a_brain() -> None:
    for name, path in modules("specialists").items():
        assert not [each for each in imports(name, path) if each.split(".")[0] == "brain"], name


@pytest.mark.parametrize("package", HOUSE)
def test_imports_run_one_way(package: str) -> None:
    known = modules(package)
    order = HOUSE[package]
    rooms = {room(name) for name in known if name != package}
    assert rooms <= set(order), "a new module has its place in the list above"
    for name, path in known.items():
        if name == package:
            continue
        for target in imported_modules(name, path, known):
            if target == package:  # the public face: for those who live as applications do
                assert room(name) in {"training", "zoo", "cli", "commands", "demo"}, f"{name} imports {target}"
            else:
                assert order.index(room(name)) <= order.index(room(target)), f"{name} imports {target}, which is above"


@pytest.mark.parametrize("package", HOUSE)
def test_imports_have_no_circles(package: str) -> None:
    known = modules(package)
    faces = {name for name, path in known.items() if path.name == "__init__.py"}
    # A face stands before its own rooms when one of them asks for it; that is Python's way, not a circle.
    graph = {name: imported_modules(name, path, known) - faces for name, path in known.items() if name not in faces}
    list(TopologicalSorter(graph).static_order())  # raises on a circle


def test_the_zoo_uses_only_what_is_public() -> None:
    """Of the package, and of the bundled specialist whose model a card takes."""
    public = importlib.import_module("specialists").__all__
    for name, path in modules("specialists").items():
        if room(f"{name}.") != "zoo":
            continue
        home = ".".join(name.split(".")[:3])
        folder = ROOT / home.replace(".", "/")
        model = read_card(folder).model if (folder / "specialist.toml").exists() else None
        shared = None if model is None else f"specialists.zoo.{model.name}"
        for target in imports(name, path):
            if shared is not None and target.startswith(f"{shared}."):
                assert target.removeprefix(f"{shared}.") in importlib.import_module(shared).__all__, name
            elif target.startswith("specialists") and not target.startswith(home):
                assert target.removeprefix("specialists.") in public, f"{name} imports {target}"


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_exists_and_none_is_hidden_by_a_module(package: str) -> None:
    face = importlib.import_module(package)
    assert len(set(face.__all__)) == len(face.__all__)
    for name in face.__all__:
        assert getattr(face, name) is not None
    folder = Path(str(face.__file__)).parent
    stems = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    assert not stems & set(face.__all__)


def test_public_names_are_as_documented() -> None:
    """In docs/reference.md, each second-level heading names a package, each table row below it a public name."""
    sections = re.split(r"^## `([\w.]+)`.*$", (ROOT / "docs" / "reference.md").read_text("utf-8"), flags=re.MULTILINE)
    written = {
        package: re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
        for package, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    assert list(written) == PUBLIC
    for package in PUBLIC:
        assert sorted(written[package]) == sorted(importlib.import_module(package).__all__), package


def run_python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("package", ["brain", "specialists", "brain.cli", "brain.testing"])
def test_importing_loads_nothing_heavy(tmp_path: Path, package: str) -> None:
    code = f"import sys, {package}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("content", ["", "DISTRIBUTION = 'another'\n"])
def test_a_strange_package_of_the_same_name_is_named_in_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "specialists").mkdir()
    (tmp_path / "specialists" / "__init__.py").write_text(content)
    done = run_python("-c", "import brain", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the package 'specialists' found at")
    assert str(tmp_path / "specialists") in last
    assert "pip install brain-specialists" in last


def test_a_library_is_silent_unless_asked(tmp_path: Path) -> None:
    code = "import logging, brain; [logging.getLogger(name).error('no') for name in ('specialists.x', 'brain.x')]"
    done = run_python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
