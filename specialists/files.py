"""Opening a file that may be somebody else's: plain files only, no links, no pipes, no more bytes than were agreed.

A file is opened once, every check is made on that descriptor, and what is handed on was read from it. So nobody can
put another file in its place between a check and its use. This module knows nothing of cards and models.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from pathlib import Path

__all__ = ["MAX_BYTES", "NOT_A_FILE", "FileProblem", "is_plain_name", "open_plain", "read_plain"]

MAX_BYTES = 2 * 1024**3
"""The most that is ever read of one file; a larger one cannot be a protobuf message anyway."""

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)  # the last part of a path must not be a link
    | getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer is not waited for
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOINHERIT", 0)
    | getattr(os, "O_BINARY", 0)
)
NOT_A_FILE = "is not a file"
_LINK = "is a link, and a link can be pointed elsewhere"


class FileProblem(Exception):
    """Why a file is not read, as the end of a sentence that begins with its name. It never tells of any content."""


def is_plain_name(name: str) -> bool:
    """Whether ``name`` is a path inside a folder on every system: relative, with ``/``, without ``..``, backslashes,
    drives or streams (``:``) and NUL."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not any(sign in name for sign in "\\:\0")


def open_plain(
    path: str | os.PathLike[str],
    *,
    within: str | os.PathLike[str] | None = None,
    limit: int = MAX_BYTES,
    hard_links: bool | None = None,
) -> io.FileIO:
    """Open a regular file for reading, unbuffered. Raises :class:`FileProblem`.

    ``path``: the file; with ``within``, its name inside that folder, of which no part may be a link (the way to the
    folder itself is the caller's own and may lead over links). ``limit``: the most bytes it may have.

    ``hard_links``: whether the file may have a second name. Who owns that name may have put a file of somebody else's
    here, or may alter this one later. ``False`` refuses it, as is right for a folder that nobody trusts. ``True``
    takes it. ``None`` takes it where a package manager has put it: uv and conda link every installed file to the copy
    in their cache, and what is installed is trusted. Elsewhere it refuses it: a copy is easily made.
    """
    try:
        file = _open(Path(path), None if within is None else Path(within))
    except OSError as error:
        # Without following links, opening a link fails with ELOOP (EMLINK on some systems).
        why = _LINK if error.errno in (errno.ELOOP, errno.EMLINK) else f"cannot be read: {error.strerror}"
        raise FileProblem(why) from None
    except ValueError as error:  # NUL in a name
        raise FileProblem(f"cannot be read: {error}") from None
    try:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise FileProblem(NOT_A_FILE)
        whole = Path(path) if within is None else Path(within) / path
        if info.st_nlink > 1 and not (_installed(whole) if hard_links is None else hard_links):
            raise FileProblem("has a second name (a hard link), by which it can be altered; put a copy in its place")
        if info.st_size > limit:
            raise FileProblem(f"has {info.st_size:,} bytes, which is more than the {limit:,} allowed")
    except BaseException:
        file.close()
        raise
    return file


def read_plain(
    path: str | os.PathLike[str],
    *,
    within: str | os.PathLike[str] | None = None,
    limit: int = MAX_BYTES,
    hard_links: bool | None = None,
) -> bytes:
    """The whole of a regular file, as :func:`open_plain` opens it. Raises :class:`FileProblem`."""
    with open_plain(path, within=within, limit=limit, hard_links=hard_links) as file:
        size = os.fstat(file.fileno()).st_size
        parts, length = [], 0
        try:
            while part := file.read(size + 1 - length):  # one byte more than there should be: has it grown?
                parts.append(part)
                length += len(part)
        except OSError as error:
            raise FileProblem(f"cannot be read: {error.strerror}") from None
    if length != size:
        raise FileProblem("was altered while it was read")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _open(path: Path, within: Path | None) -> io.FileIO:
    if within is None:
        return _open_name(path, None)
    if not is_plain_name(path.as_posix()) or path.is_absolute():
        raise FileProblem("is not a name inside the folder")
    if os.open not in os.supports_dir_fd:  # Windows: each part is looked at, but between two looks it may change
        at = within
        for part in path.parts[:-1]:
            at /= part
            if _is_link(at.lstat()):
                raise FileProblem(f"lies behind {part!r}, which {_LINK}")
        return _open_name(within / path, None)
    folder = os.open(within, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.parts[:-1]:
            if _is_link(os.stat(part, dir_fd=folder, follow_symlinks=False)):
                raise FileProblem(f"lies behind {part!r}, which {_LINK}")
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            inner = os.open(part, flags, dir_fd=folder)
            os.close(folder)
            folder = inner
        return _open_name(Path(path.name), folder)
    finally:
        os.close(folder)


def _open_name(path: Path, folder: int | None) -> io.FileIO:
    # Looked at before: to open a device can already do something. The flags hold when it is exchanged in between.
    info = os.stat(path, dir_fd=folder, follow_symlinks=False)
    if _is_link(info):
        raise FileProblem(_LINK)
    if not stat.S_ISREG(info.st_mode):
        raise FileProblem(NOT_A_FILE)
    file = io.FileIO(os.open(path, _FLAGS, dir_fd=folder), "rb")
    now = os.fstat(file.fileno())
    if not hasattr(os, "O_NOFOLLOW") and (now.st_dev, now.st_ino) != (info.st_dev, info.st_ino):
        file.close()
        raise FileProblem("was exchanged while it was opened")
    return file


def _is_link(info: os.stat_result) -> bool:
    reparsed = getattr(info, "st_file_attributes", 0) & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0)
    return stat.S_ISLNK(info.st_mode) or bool(reparsed)


def _installed(path: Path) -> bool:
    """Whether a file belongs to this package, or lies where Python finds installed packages."""
    path = path.resolve()
    if path.is_relative_to(Path(__file__).resolve().parent):
        return True
    for entry in filter(None, sys.path):
        place = Path(entry).resolve()
        if path.is_relative_to(place) and any(place.glob("*.dist-info")):
            return True
    return False
