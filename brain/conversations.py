"""Sessions: conversations that go on from run to run, each one's messages kept as they were sent.

A session belongs to one tenant, the first to append to it, and is only ever appended to. Its messages are those of the
wire, as JSON; what a file holds is read as data and nothing else. This module knows nothing of runs.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from specialists import strict_json

from .encoding import EncodedMessage, NotJson, as_message
from .errors import ConfigurationError, JournalCorrupt, LedgerError, PromptError, SessionError
from .events import Message
from .keys import redact, redact_value
from .messages import ROLES
from .storage import Schema, SqliteFile

__all__ = ["MemorySessions", "Sessions", "SqliteSessions"]

T = TypeVar("T")

SCHEMA = Schema(
    application_id=0x62726E73,  # "brns"
    version=1,
    statements=(
        "CREATE TABLE sessions (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT,"
        " messages INTEGER NOT NULL, changed INTEGER NOT NULL)",
        "CREATE INDEX sessions_of_tenant ON sessions (tenant, changed)",
        "CREATE TABLE messages (session INTEGER NOT NULL, place INTEGER NOT NULL, message TEXT NOT NULL,"
        " PRIMARY KEY (session, place)) WITHOUT ROWID",
    ),
)

_WORDS = {
    "the ledger's file": "the file of sessions",
    "the ledger's folder": "the folder",
    "else than a ledger": "else than sessions",
    "for the ledger": "for the sessions",
}
"""What is said of a ledger's file, as it is said of one of sessions."""


class Sessions(Protocol):
    """Where sessions are kept: four methods, safe for concurrent calls from any event loop.

    Each raises :class:`SessionError` where a session belongs to another tenant (``problem`` is ``"taken"``), or cannot
    be used. ``tenant`` is ``None`` for an application without tenants; that is a tenant of its own.
    """

    async def messages(self, session: str, *, tenant: str | None = None) -> list[EncodedMessage]:
        """The messages in order; none of a session that nobody has begun."""

    async def append(
        self, session: str, messages: Sequence[Message], *, tenant: str | None = None, expected: int
    ) -> int:
        """Add ``messages`` to a session that holds ``expected`` ones, all or none. How many it holds then.

        Raises :class:`SessionError` with the problem ``"changed"`` where it holds others. Where what stands behind
        ``expected`` is just these messages, they were appended before a crash, and nothing is written.
        """

    async def sessions(self, *, tenant: str | None = None) -> list[str]:
        """The tenant's sessions, the one changed last first."""

    async def delete(self, session: str, *, tenant: str | None = None) -> None:
        """Forget a session with all its messages; nothing happens where there is none."""


class MemorySessions:
    """Sessions in memory: gone with the process, and of no other process's concern."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[str | None, tuple[EncodedMessage, ...]]] = {}

    def __repr__(self) -> str:
        return f"MemorySessions({len(self._kept)} sessions)"

    async def messages(self, session: str, *, tenant: str | None = None) -> list[EncodedMessage]:
        """See :class:`Sessions`."""
        _check_names(session, tenant)
        with self._lock:
            return list(self._of(session, tenant))

    async def append(
        self, session: str, messages: Sequence[Message], *, tenant: str | None = None, expected: int
    ) -> int:
        """See :class:`Sessions`."""
        _check_names(session, tenant)
        new = _checked(messages, expected)
        with self._lock:
            before = self._of(session, tenant)
            if len(before) != expected:
                if tuple(before[expected:]) == tuple(new):
                    return len(before)
                raise _changed(session, len(before), expected)
            if new:
                self._kept.pop(session, None)  # the one changed last stands last
                self._kept[session] = (tenant, (*before, *new))
            return len(before) + len(new)

    async def sessions(self, *, tenant: str | None = None) -> list[str]:
        """See :class:`Sessions`."""
        _check_names("", tenant)
        with self._lock:
            return [session for session, (owner, _) in reversed(self._kept.items()) if owner == tenant]

    async def delete(self, session: str, *, tenant: str | None = None) -> None:
        """See :class:`Sessions`."""
        _check_names(session, tenant)
        with self._lock:
            self._of(session, tenant)
            self._kept.pop(session, None)

    def _of(self, session: str, tenant: str | None) -> tuple[EncodedMessage, ...]:
        owner, messages = self._kept.get(session, (tenant, ()))
        if owner != tenant:
            raise _taken(session)
        return messages


class SqliteSessions:
    """Sessions in the SQLite file ``path``, which is made when it is first used; its folder is not.

    For any number of threads and processes of one machine; no event loop waits for the disk. ``durable``: what was
    appended outlives a power cut too. Raises :class:`SessionError` where the file cannot be used or is damaged, and it
    is left as it was.
    """

    def __init__(self, path: str | os.PathLike[str], *, durable: bool = False) -> None:
        try:
            self._file = SqliteFile(path, SCHEMA, durable=durable)
        except (LedgerError, TypeError) as error:
            raise ConfigurationError(f"{path!r} is no path for the file of sessions: name a file") from error

    def __repr__(self) -> str:
        return f"SqliteSessions({self._file.path!r})"

    async def messages(self, session: str, *, tenant: str | None = None) -> list[EncodedMessage]:
        """See :class:`Sessions`."""
        _check_names(session, tenant)

        def read(connection: sqlite3.Connection) -> list[EncodedMessage]:
            found = _find(connection, session, tenant)
            return [] if found is None else _rows(connection, session, *found)

        return await self._done(self._file.read, read)

    async def append(
        self, session: str, messages: Sequence[Message], *, tenant: str | None = None, expected: int
    ) -> int:
        """See :class:`Sessions`."""
        _check_names(session, tenant)
        new = _checked(messages, expected)

        def write(connection: sqlite3.Connection) -> int:
            found = _find(connection, session, tenant)
            count = 0 if found is None else found[1]
            if count != expected:
                if found is not None and count > expected and _rows(connection, session, *found)[expected:] == new:
                    return count
                raise _changed(session, count, expected)
            if not new:
                return count
            (latest,) = connection.execute("SELECT COALESCE(MAX(changed), 0) + 1 FROM sessions").fetchone()
            if found is None:
                number = connection.execute(
                    "INSERT INTO sessions (id, tenant, messages, changed) VALUES (?, ?, ?, ?)",
                    (session, tenant, len(new), latest),
                ).lastrowid
            else:
                number = found[0]
                connection.execute(
                    "UPDATE sessions SET messages = ?, changed = ? WHERE number = ?",
                    (count + len(new), latest, number),
                )
            rows = [(number, count + at, message.wire.decode()) for at, message in enumerate(new)]
            connection.executemany("INSERT INTO messages (session, place, message) VALUES (?, ?, ?)", rows)
            return count + len(new)

        return await self._done(self._file.write, write)

    async def sessions(self, *, tenant: str | None = None) -> list[str]:
        """See :class:`Sessions`."""
        _check_names("", tenant)
        statement = "SELECT id FROM sessions WHERE tenant IS ? ORDER BY changed DESC"

        def read(connection: sqlite3.Connection) -> list[str]:
            found = [id for (id,) in connection.execute(statement, (tenant,))]
            if not all(isinstance(id, str) for id in found):
                raise _damaged("an id is no text")
            return found

        return await self._done(self._file.read, read)

    async def delete(self, session: str, *, tenant: str | None = None) -> None:
        """See :class:`Sessions`."""
        _check_names(session, tenant)

        def write(connection: sqlite3.Connection) -> None:
            found = _find(connection, session, tenant)
            if found is not None:
                connection.execute("DELETE FROM messages WHERE session = ?", found[:1])
                connection.execute("DELETE FROM sessions WHERE number = ?", found[:1])

        await self._done(self._file.write, write)

    async def aclose(self) -> None:
        """Wait until everything is written, and let go of the file; the next use opens it again."""
        await asyncio.to_thread(self._file.close)

    def close(self) -> None:
        """:meth:`aclose` for callers without an event loop."""
        self._file.close()

    async def _done(self, way: Callable[..., Any], work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            done: T = await way(work)
        except LedgerError as error:
            # The file is opened and looked after as a ledger's is; who reads this has a file of sessions.
            told = str(error)
            for theirs, ours in _WORDS.items():
                told = told.replace(theirs, ours)
            raise SessionError(told) from error
        except sqlite3.Error as error:  # larger than SQLite's rows may be, for one
            raise SessionError(
                f"the file of sessions {self._file.path} does not take this ({error}): shorten the messages"
            ) from error
        return done


def _find(connection: sqlite3.Connection, session: str, tenant: str | None) -> tuple[int, int] | None:
    """The session's number and how many messages it says it has."""
    found = connection.execute("SELECT number, tenant, messages FROM sessions WHERE id = ?", (session,)).fetchone()
    if found is None:
        return None
    number, owner, count = found
    if type(number) is not int or type(count) is not int or count < 0 or not isinstance(owner, str | None):
        raise _damaged(f"the session {_shown(session)} cannot be read")
    if owner != tenant:
        raise _taken(session)
    return number, count


def _rows(connection: sqlite3.Connection, session: str, number: int, count: int) -> list[EncodedMessage]:
    statement = "SELECT place, message FROM messages WHERE session = ? ORDER BY place"
    rows = connection.execute(statement, (number,)).fetchall()
    if [place for place, _ in rows] != list(range(count)):
        raise _damaged(f"the session {_shown(session)} has not the messages that it says it has")
    try:
        return [_read(text) for _, text in rows]
    except (ValueError, RecursionError) as error:
        raise _damaged(f"a message of the session {_shown(session)} cannot be read: {error}") from None


def _read(text: Any) -> EncodedMessage:
    value = strict_json.loads(text) if isinstance(text, str) else None
    if not isinstance(value, dict) or not _is_role(value.get("role")):
        raise ValueError("it is no chat message")
    return EncodedMessage(value)


def _is_role(role: object) -> bool:
    return isinstance(role, str) and role in ROLES


def _checked(messages: Sequence[Message], expected: int) -> list[EncodedMessage]:
    if isinstance(expected, bool) or not isinstance(expected, int) or expected < 0:
        raise ConfigurationError(f"expected is how many messages the session had, not {expected!r}")
    checked = []
    for message in messages:
        if not isinstance(message, dict) or not _is_role(message.get("role")):
            raise ConfigurationError("a session is made of chat messages, as in result.messages")
        try:
            encoded = as_message(message)
            hidden = redact_value(message) if redact(text := encoded.wire.decode()) != text else encoded
            checked.append(as_message(hidden))
        except (NotJson, RecursionError) as error:
            raise PromptError(f"a message of the session contains {error}") from None
    return checked


def _check_names(session: object, tenant: object) -> None:
    for name, text in (("session", session), ("tenant", tenant)):
        if name == "tenant" and text is None:
            continue
        if not isinstance(text, str):
            raise ConfigurationError(f"{name} is text, not {text!r}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ConfigurationError(f"{name} contains half of a character pair; decode its source again") from None


def _taken(session: str) -> SessionError:
    return SessionError(f"the session {_shown(session)} belongs to another tenant: name another one", problem="taken")


def _changed(session: str, count: int, expected: int) -> SessionError:
    return SessionError(
        f"the session {_shown(session)} holds {count} messages, and {expected} were expected: another run appended"
        " meanwhile; read it again, and run again",
        problem="changed",
    )


def _damaged(why: str) -> JournalCorrupt:
    return JournalCorrupt(f"the ledger's file is damaged, or somebody changed it ({why}): put a copy back")


def _shown(id: str) -> str:
    text = repr(id)
    return text if len(text) <= 60 else text[:59] + "…"
