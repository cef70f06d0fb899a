"""``brain doctor``: versions, providers, cores, cache, endpoint and bundled specialists. It runs no model.

Of a key it says only whether there is one.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from .terminal import mark, write, write_json

__all__ = ["Fact", "configure", "examine"]

FORMAT = 1
_NEEDED = ("pydantic", "openai", "httpx2", "tenacity", "genai-prices", "numpy", "jsonschema", "rich")


class Fact(NamedTuple):
    """One thing looked at. ``failed`` means that something needed is broken, and ``text`` ends with the remedy."""

    what: str
    status: str
    text: str
    value: Any = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options to ``parser``."""
    parser.description = (
        "Says what is installed and whether it can work: versions, ONNX providers, usable cores, the cache folder,\n"
        "the endpoint that the environment names (never a key), and whether the bundled specialists are whole.\n"
        "Nothing is sent anywhere. Exit code 1 when something needed is broken."
    )
    parser.epilog = "example:\n  brain doctor --json"
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.set_defaults(run=_run, parser=parser)


def _run(arguments: argparse.Namespace) -> int:
    facts = examine()
    passed = all(fact.status != "failed" for fact in facts)
    if arguments.json:
        entries = [{"what": fact.what, "status": fact.status, "text": fact.text, "value": fact.value} for fact in facts]
        write_json({"passed": passed, "facts": entries, "format": FORMAT})
    else:
        for fact in facts:
            write(f"{mark(fact.status)} {fact.what:<18} {fact.text}")
    return 0 if passed else 1


def examine() -> list[Fact]:
    """Everything that was looked at, in order."""
    facts = [_python(), _package("brain-specialists")]
    facts += [_package(name) for name in _NEEDED]
    return [*facts, _runtime(), _cores(), _cache(), _endpoint(), _key(), *_bundled()]


def _python() -> Fact:
    found = platform.python_version()
    text = f"{found} on {platform.system()} {platform.machine()} ({sys.executable})"
    return Fact("python", "ok", text, found)


def _package(name: str) -> Fact:
    try:
        found = version(name)
    except PackageNotFoundError:
        remedy = "pip install brain-specialists" if name != "brain-specialists" else "pip install . in its folder"
        return Fact(name, "failed", f"not installed: {remedy}")
    return Fact(name, "ok", found, found)


def _runtime() -> Fact:
    both = _installed("onnxruntime") and _installed("onnxruntime-gpu")
    from specialists.runtime import import_runtime

    try:
        onnxruntime = import_runtime()
    except ImportError as error:
        remedy = "pip install 'brain-specialists[cpu]' (or [gpu] on a machine with CUDA)"
        if not (_installed("onnxruntime") or _installed("onnxruntime-gpu")):
            return Fact("onnxruntime", "failed", f"not installed: {remedy}")
        return Fact("onnxruntime", "failed", f"cannot be imported ({error}); reinstall it: {remedy}")
    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    text = f"{onnxruntime.__version__}, providers: {', '.join(providers)}"
    if both:
        text += "; onnxruntime and onnxruntime-gpu are both installed and hide each other: uninstall one"
    return Fact(
        "onnxruntime",
        "failed" if both else "ok",
        text,
        {"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()},
    )


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _cores() -> Fact:
    from specialists.workers import usable_cores

    usable, all_cores = usable_cores(), os.cpu_count()
    return Fact("cores", "ok", f"{usable} usable of {all_cores}", {"usable": usable, "all": all_cores})


def _cache() -> Fact:
    from specialists.graph_cache import VARIABLE, folder

    kept = folder()
    if kept is None:
        return Fact("cache", "note", f"rewritten graphs are not kept; {VARIABLE} names a folder for them")
    if not kept.exists():
        return Fact("cache", "ok", f"{kept} (not made yet)", str(kept))
    if not os.access(kept, os.W_OK):
        return Fact("cache", "note", f"{kept} cannot be written", str(kept))
    return Fact("cache", "ok", str(kept), str(kept))


def _endpoint() -> Fact:
    from ..errors import EndpointRefused
    from ..wire.endpoints import parse_endpoint

    given = os.environ.get("OPENAI_BASE_URL")
    if not given:
        return Fact("endpoint", "ok", 'OPENAI_BASE_URL is not set: "openai:NAME" means https://api.openai.com')
    try:
        origin = parse_endpoint(given).origin
    except EndpointRefused as error:
        return Fact("endpoint", "failed", f"OPENAI_BASE_URL is refused: {error}")
    return Fact("endpoint", "ok", f"{origin} (from OPENAI_BASE_URL)", origin)


def _key() -> Fact:
    there = bool(os.environ.get("OPENAI_API_KEY", "").strip())
    text = "OPENAI_API_KEY is set" if there else "OPENAI_API_KEY is not set; the built-in planner needs none"
    return Fact("key", "ok" if there else "note", text, there)


def _bundled() -> list[Fact]:
    from specialists.card import read_card, verify_files
    from specialists.errors import SpecialistError
    from specialists.registry import folder_of, names

    facts = []
    for name, source in names().items():
        if source != "bundled":
            continue
        try:
            folder = folder_of(name)
            assert folder is not None
            card = read_card(folder)
            verify_files(folder, card)
        except (SpecialistError, OSError) as error:
            facts.append(
                Fact(name, "failed", f"{error}; or reinstall: pip install --force-reinstall brain-specialists")
            )
        else:
            facts.append(
                Fact(name, "ok", f"bundled, {card.version}, {len(card.files)} files as its card says", card.version)
            )
    return facts or [Fact("specialists", "note", "none is bundled")]
