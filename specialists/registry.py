"""Specialists by name (bundled, or installed through entry points) and by path (a folder, and whether it is trusted).

A name never means a folder: a path has a separator, or is a ``Path``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from .card import CARD, Card, file_hash, read_card, verify_files
from .certificates import CERTIFICATE, folder_digest, read_certificate
from .define import Specialist
from .errors import (
    CardError,
    CertificateError,
    DefinitionError,
    ModelRejected,
    SpecialistError,
    UnknownSpecialist,
    UntrustedFolder,
)
from .files import FileProblem
from .onnx import OnnxModel
from .sources import install
from .tasks import Runs, from_card, model_file

__all__ = ["Found", "find", "folder_of", "is_path", "load", "model_digest", "names", "verify_model"]

logger = logging.getLogger("specialists")

ENTRY_POINTS = "specialists"
MODEL = "model.onnx"
MOST_NAMED = 32
"""Names that one message lists."""
ZOO = Path(__file__).with_name("zoo")


class Found(NamedTuple):
    """A loaded specialist with what its folder says. ``folder`` and ``card`` are ``None`` for one without a folder."""

    specialist: Specialist[..., Any]
    card: Card | None
    folder: Path | None
    correct: Callable[[dict[str, Any], Any, Any], bool] | None
    """``correct(arguments, expected, value)`` where answers are not unique."""
    generate: Callable[[int], Iterator[dict[str, Any]]] | None = None
    """From a seed, labelled cases without end."""


def names() -> dict[str, str]:
    """Every specialist known by name, with where it comes from: ``bundled`` or the distribution that brings it."""
    found = dict.fromkeys(_bundled(), "bundled")
    for name, entry in _installed().items():
        found.setdefault(name, entry.source)
    return found


def is_path(name: str | os.PathLike[str]) -> bool:
    """Whether ``name`` means a folder: it has a separator, or is a path already."""
    return not isinstance(name, str) or "/" in name or os.sep in name


def folder_of(name: str | os.PathLike[str]) -> Path | None:
    """Where the card of ``name`` lies, without importing any of its code; ``None`` when it has no folder.

    Raises :class:`UnknownSpecialist`.
    """
    if is_path(name):
        return Path(name).resolve()
    if name in _bundled():
        return ZOO / name
    if (installed := _installed().get(str(name))) is not None:
        # Only a top-level module can be found without importing what stands around it.
        value = installed.entry.value
        spec = None if "." in value or ":" in value else importlib.util.find_spec(value)
        return None if spec is None or spec.origin is None else Path(spec.origin).parent
    raise _unknown(str(name))


def load(name: str | os.PathLike[str], trust: bool = False) -> Specialist[..., Any]:
    """A specialist by name, or by the path of its folder.

    Of a folder named by path nothing is trusted without ``trust=True``: one with code is refused, and one whose card
    says everything (it names a task) has its model run in a limited child process. With it, code is imported and models
    run in this process. Raises :class:`UnknownSpecialist`, :class:`CardError`, :class:`ModelRejected` (a file's hash
    differs) or :class:`UntrustedFolder`.
    """
    return find(name, trust).specialist


def find(name: str | os.PathLike[str], trust: bool = False) -> Found:
    """As :func:`load`, with the card, the folder and the card's ``correct``."""
    if is_path(name):
        return _from_folder(Path(name).resolve(), trust)
    if name in _bundled():
        return _from_bundled(ZOO / name)
    if (installed := _installed().get(str(name))) is not None:
        return _from_entry(installed.entry)
    raise _unknown(str(name))


def model_digest(name: str) -> str:
    """The sha256 of the model of the bundled specialist ``name``. Raises :class:`CardError` when there is none."""
    if name not in _bundled():
        raise CardError(f"a card can take its model from a bundled specialist only, and {name!r} is none")
    try:
        return file_hash(Path(MODEL), within=ZOO / name)
    except FileProblem:
        raise CardError(f"the bundled specialist {name!r} has no {MODEL} for a card to take") from None


def verify_model(card: Card) -> None:
    """Check that the model which ``card`` takes from a bundled specialist is the one it names.

    Raises :class:`ModelRejected` where it is another, and :class:`CardError` where there is none.
    """
    if card.model is not None and model_digest(card.model.name) != card.model.sha256:
        raise ModelRejected(
            f"{card.name}: the model of {card.model.name} is not the one the card names (its sha256 differs); get a"
            " release in which the two belong together, or measure anew and run `brain specialists seal FOLDER --model`"
        )


class _Installed(NamedTuple):
    """An entry point, and the distribution that brings it."""

    entry: EntryPoint
    source: str


def _installed() -> Mapping[str, _Installed]:
    """What installed packages bring, by name; read anew when a folder that packages lie in has changed."""
    return _read_installed(tuple((path, _changed(path)) for path in sys.path))


def _changed(path: str) -> int | None:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return None


@lru_cache(maxsize=1)
def _read_installed(_: tuple[tuple[str, int | None], ...]) -> Mapping[str, _Installed]:
    found: dict[str, _Installed] = {}
    sources: dict[int, str] = {}  # a distribution parses its metadata each time it is asked for its name
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.dist is not None and id(entry.dist) not in sources:
            sources[id(entry.dist)] = entry.dist.name
        found.setdefault(entry.name, _Installed(entry, sources.get(id(entry.dist), "installed")))
    return found


def _bundled() -> list[str]:
    return sorted(path.parent.name for path in ZOO.glob(f"*/{CARD}"))


def _unknown(name: str) -> UnknownSpecialist:
    hint = f"; for the folder of that name write './{name}'" if os.path.isdir(name) else ""
    return UnknownSpecialist(f"there is no specialist {name[:64]!r}; {_known(name)}{hint}")


def _known(name: str) -> str:
    known = names()
    if len(known) <= MOST_NAMED:
        return f"known are {', '.join(known) or 'none'}"
    from difflib import get_close_matches

    return f"of the {len(known)} known the nearest are {', '.join(get_close_matches(name[:64], known, 8, 0.0))}"


def _from_entry(entry: EntryPoint) -> Found:
    try:
        thing = entry.load()
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UnknownSpecialist(
            f"the installed specialist {entry.name!r} ({entry.value}) cannot be imported: {problem}"
        ) from error
    if isinstance(thing, ModuleType):
        found = _from_package(thing)
    elif isinstance(thing, Specialist):
        found = Found(thing, None, None, None)
    else:
        raise DefinitionError(f"the entry point {entry.name!r} names {entry.value}, which is not a specialist")
    if found.specialist.name != entry.name:
        raise DefinitionError(
            f"the entry point {entry.name!r} brings the specialist {found.specialist.name!r}; make the two names one"
        )
    return found


def _from_package(package: ModuleType) -> Found:
    if package.__file__ is None:
        raise CardError(f"the installed package {package.__name__!r} has no __init__.py, so its card cannot be found")
    folder = Path(package.__file__).parent
    card = read_card(folder)
    verify_files(folder, card)
    if card.task is not None:
        return _from_task(folder, card, trusted=True)
    verify_model(card)
    return _certified(_resolve(package.__name__, folder, card))


def _from_bundled(folder: Path) -> Found:
    card = read_card(folder)
    if card.task is None:
        return _from_package(importlib.import_module(f"specialists.zoo.{folder.name}"))
    verify_files(folder, card)
    return _from_task(folder, card, trusted=True)


def _from_folder(folder: Path, trust: bool) -> Found:
    card = read_card(folder)
    sources = verify_files(folder, card, hard_links=None if trust else False)
    if card.task is not None:
        return _from_task(folder, card, trusted=trust)
    if not trust:
        raise UntrustedFolder(
            f"{str(folder)!r} is a specialist with Python code, which runs with your rights;"
            " read it, then pass trust=True (--trust on the command line)"
        )
    verify_model(card)
    package = f"_specialist_{card.name}_{_digest(folder, card)[:16]}"
    install(package, folder, card.files, sources)
    return _certified(_resolve(package, folder, card))


def _from_task(folder: Path, card: Card, *, trusted: bool) -> Found:
    """A specialist without code. Who loads it again shares it, and so its model."""
    key = _digest(folder, card), trusted
    with _sharing:
        specialist = _tasks.get(key)
    if specialist is None:
        name, sha256 = model_file(card)
        model: Runs
        if trusted:
            model = OnnxModel(folder / name, sha256=sha256)
        else:
            from .isolation import IsolatedModel, require_isolation

            require_isolation()
            assert card.text_classification is not None
            model = IsolatedModel(folder / name, sha256=sha256, timeout=card.text_classification.timeout)
        made = from_card(folder, card, model)
        with _sharing:
            specialist = _tasks.setdefault(key, made)
    return _certified(Found(specialist, card, folder, None), None if trusted else UNTRUSTED)


UNTRUSTED = "it lies in a folder that nobody has trusted"


def _certified(found: Found, void: str | None = None) -> Found:
    """``found`` with the certificate of its folder, whose files were just checked against the card."""
    assert found.card is not None
    assert found.folder is not None
    if not os.path.lexists(found.folder / CERTIFICATE):
        return found
    digest = None
    try:
        certificate = read_certificate(found.folder)
        digest = folder_digest(found.folder, found.card.files)
    except CertificateError as error:
        logger.warning("%s: %s; it is as if there were none", found.card.name, error)
        return found
    return found._replace(specialist=found.specialist.with_certificate(certificate, folder=digest, void=void))


def _digest(folder: Path, card: Card) -> str:
    told = f"{card.model_dump_json()}{folder}"
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


_tasks: WeakValueDictionary[tuple[str, bool], Specialist[..., Any]] = WeakValueDictionary()
_sharing = threading.Lock()


def _after_fork() -> None:
    global _sharing
    _sharing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _resolve(package: str, folder: Path, card: Card) -> Found:
    assert card.function is not None
    thing = _member(package, card.function, folder)
    if not isinstance(thing, Specialist):
        raise CardError(
            f"{folder / CARD}: function {card.function!r} is not a specialist; decorate it with @specialist"
        )
    if thing.name != card.name:
        raise CardError(
            f"{folder / CARD}: the card's name is {card.name!r}, the function's {thing.name!r}; make them one"
        )
    correct = None if card.correct is None else _member(package, card.correct, folder)
    if correct is not None and not callable(correct):
        raise CardError(f"{folder / CARD}: correct {card.correct!r} is not a function")
    generate = None if card.generate is None else _member(package, card.generate, folder)
    if generate is not None and not callable(generate):
        raise CardError(f"{folder / CARD}: generate {card.generate!r} is not a function")
    return Found(thing, card, folder, correct, generate)


def _member(package: str, where: str, folder: Path) -> Any:
    module, _, name = where.partition(":")
    try:
        return getattr(importlib.import_module(f"{package}.{module}"), name)
    except SpecialistError:
        raise  # what the folder's own @specialist said is clearer than anything to be said here
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}"
        raise CardError(f"{folder / CARD}: {where!r} cannot be imported: {problem}") from error
