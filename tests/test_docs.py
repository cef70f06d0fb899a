"""Runs the code in README.md and docs/: what a reader copies works, and prints what the page says.

How a page is read, block by block:

* ``python``: run in the order of the page, in one namespace, in an empty folder. A ``text`` block right after it is
  what it prints, with ``...`` for anything.
* ``console``, ``bash``, ``sh``: lines that begin with ``$`` are run; the lines under one are what it prints, with
  ``...`` for anything. ``pip`` installs without a network, for this page only. Measurements (``python -m tests...``)
  want data from elsewhere, and are only shown.

and these comments before a block change that:

* ``<!-- not run: REASON -->``: it is only shown.
* ``<!-- file: NAME -->``: it is written to the file.
* ``<!-- figures differ -->``: numbers are compared as numbers, not by value.
* ``<!-- exit code: N -->``: how the last command of the block ends.
* ``<!-- raises: NAME -->``: the block ends in this error.
* ``<!-- cells -->``, anywhere on the page: the blocks are run as a notebook runs its cells, on an event loop.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\s*$")
_MARK = re.compile(r"^<!-- (not run|file|figures differ|exit code|raises|cells)(?:: (.*?))? -->$")


@dataclass
class Block:
    """One fenced block with the comments before it."""

    language: str
    text: str
    line: int
    marks: dict[str, str] = field(default_factory=dict)


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    marks: dict[str, str] = {}
    lines: list[str] | None = None
    start, language = 0, ""
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if lines is not None:
            if line == "```":
                yield Block(language, "\n".join(lines) + "\n", start, marks)
                marks, lines = {}, None
            else:
                lines.append(line)
        elif fence:
            start, language, lines = number, fence[1], []
        elif mark := _MARK.match(line.strip()):
            marks[mark[1]] = mark[2] or ""
        elif line.strip():
            marks = {}
    assert lines is None, f"{page.name}, line {start}: the block is never closed"


class Reader:
    """Does what a page says, in ``folder``."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.folder = folder / "work"
        self.folder.mkdir()
        self.site = folder / "site"
        self.cells = "<!-- cells -->" in page.read_text("utf-8")
        self.runner = asyncio.Runner()
        self.module = ModuleType(f"page_{page.stem}")
        sys.modules[self.module.__name__] = self.module
        self.environment = self._environment(folder / "bin")
        self.printed = ""

    def close(self) -> None:
        self.runner.close()
        del sys.modules[self.module.__name__]

    def read(self) -> None:
        """Run the page from top to bottom."""
        before: Block | None = None
        for block in blocks(self.page):
            try:
                self._do(block, before)
            except AssertionError as error:
                raise AssertionError(f"{self.page.name}, line {block.line}: {error}") from None
            before = block

    def _do(self, block: Block, before: Block | None) -> None:
        if "not run" in block.marks:
            assert block.marks["not run"], "say why it is not run"
        elif "file" in block.marks:
            path = self.folder / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, "utf-8")
        elif block.language == "python":
            self._python(block)
        elif block.language == "text" and before is not None and before.language == "python":
            compare(block.text, self.printed, "figures differ" in block.marks)
        elif block.language in ("console", "bash", "sh"):
            self._console(block)

    def _python(self, block: Block) -> None:
        tree = compile(
            "\n" * block.line + block.text,
            str(self.page),
            "exec",
            ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        printed = io.StringIO()
        expected = block.marks.get("raises")
        try:
            with contextlib.redirect_stdout(printed):
                if self.cells or tree.co_flags & inspect.CO_COROUTINE:
                    self.runner.run(self._cell(tree))
                else:
                    exec(tree, self.module.__dict__)
        except Exception as error:
            if type(error).__name__ != expected:
                raise
            printed.write(f"{type(error).__name__}: {error}\n")
        else:
            assert expected is None, f"this does not raise {expected}"
        self.printed = printed.getvalue()

    async def _cell(self, code: object) -> None:
        result = eval(code, self.module.__dict__)  # type: ignore[arg-type]
        if inspect.isawaitable(result):
            await result

    def _console(self, block: Block) -> None:
        steps: list[tuple[str, list[str]]] = []
        for line in block.text.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            elif steps and steps[-1][0].endswith("\\"):
                steps[-1] = (steps[-1][0][:-1] + line.strip(), [])
            elif steps:
                steps[-1][1].append(line)
        for number, (command, expected) in enumerate(steps):
            if command.startswith("python -m tests."):
                continue
            ended = subprocess.run(
                command,
                shell=True,
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=120,
                check=False,
            )
            code = int(block.marks.get("exit code", "0")) if number == len(steps) - 1 else 0
            assert ended.returncode == code, f"`{command}` ended with {ended.returncode}:\n{ended.stdout}"
            if any(line.strip() for line in expected):
                compare("\n".join(expected) + "\n", ended.stdout, "figures differ" in block.marks)

    def _environment(self, programs: Path) -> dict[str, str]:
        """A shell as the reader's: `brain`, `python` and `pip` are those of this interpreter."""
        programs.mkdir()
        offline = f"--no-index --no-deps --no-build-isolation --quiet --target {self.site}"
        for name, command in (
            ("python", f'exec "{sys.executable}" "$@"'),
            ("brain", f'exec "{sys.executable}" -P -m brain.cli "$@"'),
            ("pip", f'exec "{sys.executable}" -m pip --disable-pip-version-check "$@" {offline}'),
        ):
            (programs / name).write_text(f"#!/bin/sh\n{command}\n")
            (programs / name).chmod(0o755)
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "BRAIN_"))}
        return clean | {
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": os.pathsep.join([str(self.site), str(ROOT)]),
            "PYTHONUTF8": "1",
            "COLUMNS": "120",
        }


def compare(expected: str, printed: str, figures_differ: bool) -> None:
    """Compare as doctest does, with ``...`` for anything and any width of white space and rules."""
    want, got = (re.sub(r"[-─]{3,}", "---", re.sub(r"[ \t]+", " ", text)) for text in (expected, printed))
    if figures_differ:
        want, got = (re.sub(r"\d[\d.,]*", "0", text) for text in (want, got))
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    same = doctest.OutputChecker().check_output(want.strip() + "\n", got.strip() + "\n", flags)
    assert same, f"the page says\n{expected}\nand this was printed:\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("OPENAI_", "BRAIN_"))]:
        monkeypatch.delenv(name)
    reader = Reader(page, tmp_path)
    monkeypatch.chdir(reader.folder)
    monkeypatch.syspath_prepend(str(reader.folder))
    try:
        reader.read()
    finally:
        reader.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}, which is not there"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{page.name} links to {target}, and that page has no such heading"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    missing = [page.name for page in PAGES if page.parent.name == "docs" and f"({page.name})" not in index]
    assert missing in ([], ["index.md"])


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
