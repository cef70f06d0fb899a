"""Optimised graphs kept between processes, in a folder that only its owner can write. It knows nothing of cards.

ONNX Runtime spends a good part of opening a model on rewriting its graph. What comes out can be kept: by the hash of
the model's bytes, the version of ONNX Runtime, the optimisation level and the features of this CPU. It does not always
pay, because a kept graph must be read and hashed too, and one that is mostly weights opens no faster. So the first
slow opening of a model only writes down what it took, the second stores the graph, and from the third on the graph is
used; where that saves nothing, this is written down as well, and the model is opened as it is from then on.

The folder is ``$XDG_CACHE_HOME/brain-specialists/graphs`` (or below ``~/.cache``); ``SPECIALISTS_GRAPH_CACHE`` names
another, and set to nothing turns the cache off. It is used only when it is a folder and no link, belongs to this user,
and nobody else can read or write it. Each file holds its own sha256: that guards against truncation, bit flips and
half-written files, not against somebody with the owner's rights, who could as well change the Python code. A disk that
is read-only, full or missing means that nothing is kept, and never an error. Graphs are kept for the CPU only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .runtime import import_runtime

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["VARIABLE", "cached", "cpu_features", "folder", "graph_key", "open_session", "optimised", "store"]

VARIABLE = "SPECIALISTS_GRAPH_CACHE"
"""The environment variable that names another folder; set to nothing it turns the cache off."""

WORTH_SECONDS = 0.05
"""A model that opens faster is not worth a file."""

WORTH_SHARE = 0.9
"""A kept graph that takes more than this share of an ordinary opening is not used again."""

LARGEST_BYTES = 128 * 1024**2
"""A larger model is mostly weights: reading and hashing it twice costs more than rewriting its graph."""

LIMIT_BYTES = 512 * 1024**2
"""What all files together may take; the least recently used go first."""

_FORMAT = 1
_SUFFIX = ".graph"
_UNFINISHED = ".tmp"
_HEADER_BYTES = 16 * 1024
_BLOCK_BYTES = 4096
_STALE_SECONDS = 3600.0

logger = logging.getLogger("specialists")


class _Entry(NamedTuple):
    """What is known of a model. ``seconds``: CPU time of an ordinary opening. ``graph``: empty where none is kept."""

    state: str  # "seen": it opened slowly once; "kept": the graph is here; "useless": a kept graph was no faster
    seconds: float
    graph: bytes


def open_session(
    data: bytes,
    digest: str,
    make_options: Callable[[], onnxruntime.SessionOptions],
    settings: Mapping[str, str] | None = None,
) -> onnxruntime.InferenceSession:
    """A session on the CPU: from the kept graph where there is one that pays, else from ``data``.

    Args:
        data: The model's bytes, which are trusted, as any bytes given to ONNX Runtime.
        digest: Their sha256, in hex.
        make_options: Fresh session options at each call, with the optimisation level that is wanted.
        settings: Whatever else decides how the graph is rewritten; it becomes part of the key.

    Raises what ONNX Runtime raises for ``data``; nothing for the cache's sake.
    """
    options = make_options()
    level = options.graph_optimization_level
    off = type(level).ORT_DISABLE_ALL
    if len(data) > LARGEST_BYTES or level == off or folder() is None:
        return _session(data, options)
    key = graph_key(level.name, settings)
    began = time.thread_time()
    entry = _read(digest, key)
    if entry is not None and entry.state == "kept":
        options.graph_optimization_level = off
        try:
            session = _session(entry.graph, options)
        except Exception as error:
            logger.warning("a kept graph could not be opened, and is not used again: %s", error)
            _write(digest, key, _Entry("useless", entry.seconds, b""))
            return _session(data, make_options())
        if time.thread_time() - began > WORTH_SHARE * entry.seconds:
            _write(digest, key, _Entry("useless", entry.seconds, b""))
        return session
    if entry is not None and entry.state == "seen":
        session, graph = optimised(data, make_options)
        _write(digest, key, _Entry("kept" if graph else "useless", entry.seconds, graph or b""))
        return session
    began = time.thread_time()
    session = _session(data, options)
    seconds = time.thread_time() - began
    if entry is None and seconds > WORTH_SECONDS:
        # A kept graph is read and hashed before it is opened, which takes half of an ordinary opening or more.
        hopeless = 1.5 * _hashing_seconds(data) > seconds / 2
        _write(digest, key, _Entry("useless" if hopeless else "seen", seconds, b""))
    return session


def cached(digest: str, key: Mapping[str, str]) -> bytes | None:
    """The kept graph of the model with this sha256, its own hash checked, or ``None``. Never raises."""
    entry = _read(digest, key)
    return entry.graph if entry is not None and entry.state == "kept" else None


def store(digest: str, key: Mapping[str, str], data: bytes, *, seconds: float = float("inf")) -> bool:
    """Keep ``data`` as the optimised graph of the model with this sha256; whether it is kept. Never raises.

    ``seconds``: the CPU time of an opening without it, by which it is later judged.
    """
    return _write(digest, key, _Entry("kept", seconds, data))


def optimised(
    data: bytes, make_options: Callable[[], onnxruntime.SessionOptions]
) -> tuple[onnxruntime.InferenceSession, bytes | None]:
    """A session of ``data``, and the graph it runs, to be opened again with optimisations off.

    The graph is ``None`` where it could not be written down. Raises what ONNX Runtime raises for ``data``.
    """
    import tempfile

    try:
        # ONNX Runtime writes it by name; such a folder is new, and its owner's alone.
        with tempfile.TemporaryDirectory(prefix="specialists-graph-") as place:
            path = Path(place) / "graph.onnx"
            options = make_options()
            options.optimized_model_filepath = str(path)
            session = _session(data, options)
            return session, path.read_bytes()
    except Exception:  # of the disk, or of the model; if it is the model's, the next line says so
        return _session(data, make_options()), None


def graph_key(level: str, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """What an optimised graph depends on besides the model: ``level`` is the name of ONNX Runtime's own level."""
    return {
        **(settings or {}),
        "onnxruntime": import_runtime().__version__,
        "provider": "CPUExecutionProvider",
        "level": level,
        "cpu": cpu_features(),
    }


@lru_cache(maxsize=1)
def cpu_features() -> str:
    """A short name for what this CPU can do: the highest level of optimisation arranges weights for it."""
    import platform

    told = f"{platform.machine()} {platform.processor()} {sys.platform}"
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.lower().startswith(("flags", "features")):
                    told += " ".join(sorted(line.partition(":")[2].split()))
                    break
    except OSError:
        pass  # not on this system
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def folder() -> Path | None:
    """Where graphs are kept; ``None`` where they are not. It may not be there yet."""
    if not (hasattr(os, "O_NOFOLLOW") and hasattr(os, "geteuid") and os.open in os.supports_dir_fd):
        return None  # whose a folder is cannot be told here
    named = os.environ.get(VARIABLE)
    if named == "":
        return None
    try:
        if named is not None:
            chosen = Path(named).expanduser()
        else:
            base = os.environ.get("XDG_CACHE_HOME", "")
            chosen = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "brain-specialists" / "graphs"
    except RuntimeError:
        return None  # a user without a home
    package = Path(__file__).resolve().parent
    if not chosen.is_absolute():
        _no_cache(f"{VARIABLE} must name an absolute path, not {str(chosen)!r}")
        return None
    if {"site-packages", "dist-packages"} & set(chosen.parts) or package in (chosen, *chosen.parents):
        _no_cache(f"{str(chosen)!r} lies in an installed package; set {VARIABLE} to a folder of your own")
        return None
    return chosen


def _session(data: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return import_runtime().InferenceSession(data, options, ["CPUExecutionProvider"])


def _hashing_seconds(data: bytes) -> float:
    part = memoryview(data)[: 1024**2]
    began = time.thread_time()
    hashlib.sha256(part)
    return (time.thread_time() - began) * len(data) / max(1, len(part))


def _name(digest: str, key: Mapping[str, str]) -> str:
    told = json.dumps([_FORMAT, digest, dict(sorted(key.items()))])
    return hashlib.sha256(told.encode()).hexdigest() + _SUFFIX


def _read(digest: str, key: Mapping[str, str]) -> _Entry | None:
    name = _name(digest, key)
    try:
        with _opened_folder(make=False) as place:
            if place is None:
                return None
            # A pipe put there must not hold us up, nor a link lead elsewhere.
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
            with open(file, "rb") as stream:
                about = os.fstat(file)
                entry = None  # no hard links; none at all when another process has just put a new file in its place
                if _is_own(about, stat.S_ISREG) and about.st_nlink <= 1 and about.st_size <= 2 * LARGEST_BYTES:
                    entry = _parsed(stream.readline(_HEADER_BYTES), stream.read(about.st_size), digest, key)
            if entry is None:
                logger.warning("a kept graph is damaged, and was removed: %s", name)
                os.unlink(name, dir_fd=place)
            else:
                os.utime(name, dir_fd=place)  # the time of the last use, by which the oldest is found
            return entry
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _no_cache(f"kept graphs cannot be read: {error}")
        return None


def _parsed(line: bytes, graph: bytes, digest: str, key: Mapping[str, str]) -> _Entry | None:
    try:
        header = json.loads(line)
        same = header["model"] == digest and header["key"] == dict(key) and header["format"] == _FORMAT
        whole = header["sha256"] == hashlib.sha256(graph).hexdigest()
        state, seconds = str(header["state"]), float(header["seconds"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return _Entry(state, seconds, graph) if same and whole and bool(graph) == (state == "kept") else None


def _write(digest: str, key: Mapping[str, str], entry: _Entry) -> bool:
    header: dict[str, Any] = {
        "format": _FORMAT,
        "model": digest,
        "key": dict(key),
        "state": entry.state,
        "seconds": entry.seconds,
        "sha256": hashlib.sha256(entry.graph).hexdigest(),
    }
    line = json.dumps(header).encode() + b"\n"
    if len(line) > _HEADER_BYTES or len(entry.graph) > LARGEST_BYTES or (entry.state == "kept" and not entry.graph):
        return False
    unfinished = os.urandom(16).hex() + _UNFINISHED
    try:
        with _opened_folder(make=True) as place:
            if place is None:
                return False
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(unfinished, flags, 0o600, dir_fd=place)
            try:
                with open(file, "wb") as stream:
                    stream.write(line)
                    stream.write(entry.graph)
                os.rename(unfinished, _name(digest, key), src_dir_fd=place, dst_dir_fd=place)
            except BaseException:
                os.unlink(unfinished, dir_fd=place)
                raise
            _trim(place)
            return True
    except (OSError, ValueError) as error:
        _no_cache(f"graphs cannot be kept: {error}")
        return False


def _trim(place: int) -> None:
    """Remove what was used longest ago, down to the limit, and what a process that died left unfinished."""
    total, kept = 0, []
    for name in os.listdir(place):
        try:
            about = os.stat(name, dir_fd=place, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if name.endswith(_UNFINISHED) and abs(time.time() - about.st_mtime) > _STALE_SECONDS:
            _remove(name, place)
        elif name.endswith(_SUFFIX):
            size = max(_BLOCK_BYTES, about.st_size)
            total += size
            kept.append((about.st_mtime_ns, name, size))
    for _, name, size in sorted(kept):
        if total <= LIMIT_BYTES:
            break
        _remove(name, place)
        total -= size


def _remove(name: str, place: int) -> None:
    with suppress(FileNotFoundError):  # another process was faster
        os.unlink(name, dir_fd=place)


@contextmanager
def _opened_folder(*, make: bool) -> Iterator[int | None]:
    """The folder, held open while it is used, so that what was checked is what is used; ``None`` when it is no good."""
    chosen = folder()
    if chosen is None:
        yield None
        return
    if make:
        chosen.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # whose it is, is looked at below
            chosen.mkdir(0o700)
    place = os.open(chosen, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        about = os.fstat(place)
        if not _is_own(about, stat.S_ISDIR):
            _no_cache(
                f"{str(chosen)!r} is not this user's alone (owner {about.st_uid}, mode"
                f" {stat.S_IMODE(about.st_mode):o}); chmod 700 it, or set {VARIABLE} to another folder"
            )
            yield None
        else:
            yield place
    finally:
        os.close(place)


def _is_own(about: os.stat_result, kind: Callable[[int], bool]) -> bool:
    return kind(about.st_mode) and about.st_uid == os.geteuid() and not stat.S_IMODE(about.st_mode) & 0o077


def _no_cache(why: str) -> None:
    """Say once why no graph is kept."""
    if why not in _said:
        _said.add(why)
        logger.warning("optimised graphs are not kept: %s", why)


_said: set[str] = set()
