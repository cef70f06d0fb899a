"""``brain specialists new``: a folder that is a working specialist and an installable project, to be filled in.

The files lie in ``template/`` with ``{{name}}`` where the name goes, beside a small model. This module knows nothing of
what the template's task is.
"""

from __future__ import annotations

import builtins
import importlib.util
import keyword
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .card import Card, seal
from .errors import ScaffoldError
from .registry import names

__all__ = ["TEMPLATE", "check_name", "create"]

TEMPLATE = Path(__file__).with_name("template")

_NAME = re.compile(r"[a-z](_?[a-z0-9]+){0,62}")
_OWN_MODULES = {"specialist", "test_specialist"}


def create(folder: Path) -> Card:
    """Write a new specialist's folder; its last part is the specialist's name. Returns the sealed card.

    Raises :class:`ScaffoldError` when the name is no good or something is there already, and ``OSError``.
    """
    name = folder.name
    check_name(name)
    if folder.exists() or folder.is_symlink():
        raise ScaffoldError(f"{str(folder)!r} is there already; choose another name, or remove it first")
    cases = (TEMPLATE / "cases.jsonl.tmpl").read_text("utf-8")
    filled = {
        "name": name,
        "dashed": name.replace("_", "-"),
        "range": _range(),
        "answerable": str(sum('"expected": null' not in line for line in cases.splitlines())),
    }
    folder.mkdir(parents=True)
    try:
        for source in sorted(TEMPLATE.iterdir()):
            if source.suffix == ".tmpl":
                text = re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], source.read_text("utf-8"))
                (folder / source.stem).write_text(text, "utf-8", newline="\n")
            elif source.is_file():
                shutil.copyfile(source, folder / source.name)
        return seal(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a folder would only be in the way of the next try
        raise


def check_name(name: str) -> None:
    """Raise :class:`ScaffoldError` unless ``name`` can be a specialist's name, a function's and a package's."""
    why = None
    if not _NAME.fullmatch(name) or len(name) > 64:
        why = "a name is lower-case letters, digits and single underscores, begins with a letter and ends with none"
    elif keyword.iskeyword(name) or keyword.issoftkeyword(name):
        why = "it is a word of the Python language"
    elif name in dir(builtins) or name in _OWN_MODULES:
        why = "it would hide something of the same name in its own code"
    elif name in names():
        why = f"a specialist of that name is known already ({names()[name]})"
    elif name in sys.stdlib_module_names or _is_module(name):
        why = "an installed Python module has that name, and one would hide the other"
    if why is not None:
        raise ScaffoldError(f"{name!r} cannot be a specialist's name: {why}; choose another, such as 'invoice_total'")


def _is_module(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return True
    # A bare folder is a namespace package to Python; it hides nothing once the new one is installed.
    return spec is not None and spec.origin is not None


def _range() -> str:
    try:
        major, minor = version("brain-specialists").split(".")[:2]
    except PackageNotFoundError:
        return ""
    return f">={major}.{minor},<{int(major) + 1}"
