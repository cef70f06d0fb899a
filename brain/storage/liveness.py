"""Whether the process that wrote a token into a file still lives, on this machine.

A process holds an operating system's lock on a small file of its own beside the database, ``<path>-alive/<token>``.
The kernel lets go of the lock however the process ends. No clock is read and no process id compared, so neither a clock
that jumps nor an id that is used again deceives. Tokens come from a file that others may have written: one that is not
of our own making is never made a path.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

from ..errors import LedgerError

__all__ = ["claim", "is_alive", "new_token", "token"]

TOKEN = re.compile(r"[0-9a-f]{32}")

MODE = 0o600
FOLDER_MODE = 0o700


@dataclass(slots=True)
class _Held:
    token: str
    descriptor: int | None = None
    identity: tuple[int, int] | None = None


_held: dict[str, _Held] = {}
"""By the database's real path: this process's token, and once it is claimed the open file that holds the lock."""
_lock = threading.Lock()


def new_token() -> str:
    """A token like no other."""
    return secrets.token_hex(16)


def token(path: str) -> str:
    """This process's token for the database at the real ``path``. Another in a forked child."""
    with _lock:
        return _mine(path).token


def claim(path: str) -> str:
    """Hold this process's lock for the database at the real ``path``, if it is not held yet; its token.

    Raises :class:`LedgerError` where no file can be made.
    """
    with _lock:
        mine = _mine(path)
        folder = f"{path}-alive"
        file = os.path.join(folder, mine.token)
        if mine.descriptor is not None and mine.identity == _identity(file):
            return mine.token
        try:
            with suppress(FileExistsError):
                os.mkdir(folder, FOLDER_MODE)
            mine.descriptor = _hold(file)  # should somebody have removed the old file, the old lock tells nobody
            mine.identity = _identity(file)
        except OSError as error:
            raise LedgerError(
                f"{file} cannot be made ({error}), so no other process could know that this one lives: make the folder"
                " of the ledger's file writable"
            ) from error
        _sweep(folder)
        return mine.token


def is_alive(path: str, owner: str) -> bool:
    """Whether the process that holds ``owner`` for the database at the real ``path`` lives.

    ``False`` for what is no token. Raises :class:`LedgerError` when it cannot be known.
    """
    if not isinstance(owner, str) or TOKEN.fullmatch(owner) is None:
        return False
    with _lock:
        mine = _held.get(path)
        if mine is not None and mine.token == owner:
            return True
    return _is_held(os.path.join(f"{path}-alive", owner))


def _mine(path: str) -> _Held:
    if path not in _held:
        _held[path] = _Held(new_token())
    return _held[path]


def _identity(file: str) -> tuple[int, int] | None:
    try:
        info = os.stat(file, follow_symlinks=False)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _sweep(folder: str) -> None:
    """Remove what the dead have left. What cannot be looked at stays."""
    try:
        names = [name for name in os.listdir(folder) if TOKEN.fullmatch(name)]
    except OSError:
        return
    for name in names:
        if not any(held.token == name for held in _held.values()):
            with suppress(LedgerError):
                _is_held(os.path.join(folder, name))


if sys.platform == "win32":

    def _hold(file: str) -> int:
        # An open file cannot be removed there: being open is the lock.
        return os.open(file, os.O_CREAT | os.O_RDWR, MODE)

    def _is_held(file: str) -> bool:
        try:
            os.unlink(file)
        except FileNotFoundError:
            return False
        except PermissionError:
            return True
        except OSError as error:
            raise _unknown(file, error) from error
        return False

else:
    import fcntl

    def _hold(file: str) -> int:
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            descriptor = os.open(file, flags, MODE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # somebody may be looking, for a moment
                info = os.fstat(descriptor)
                if (info.st_dev, info.st_ino) == _identity(file):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # they took it for a dead one's and removed it

    def _is_held(file: str) -> bool:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            if _is_regular(file):
                raise _unknown(file, error) from error
            return False  # a link or a folder is not of our making
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                return False
            # Shared, so that two who look at once do not take each other for the owner.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if (info.st_dev, info.st_ino) == _identity(file):
                with suppress(OSError):
                    os.unlink(file)
        except BlockingIOError:
            return True
        except OSError as error:
            raise _unknown(file, error) from error
        finally:
            os.close(descriptor)
        return False


def _is_regular(file: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(file, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _unknown(file: str, error: OSError) -> LedgerError:
    return LedgerError(f"{file} cannot be looked at ({error}), so it is not known whether its process lives: allow it")


def _after_fork() -> None:
    # The lock belongs to the open file, which a child shares; the parent alone must hold it.
    for held in _held.values():
        if held.descriptor is not None:
            with suppress(OSError):
                os.close(held.descriptor)
    _held.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)
