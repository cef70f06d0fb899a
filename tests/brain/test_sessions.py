"""Sessions: only appended to, each of one tenant, the same in memory and in a file."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brain.conversations import MemorySessions, Sessions, SqliteSessions
from brain.encoding import EncodedMessage
from brain.errors import BrainError, ConfigurationError, PromptError, SessionError
from brain.keys import Secret
from brain.ledger import Ledger
from brain.storage import failpoints

from .storing import run_python

USER = {"role": "user", "content": "hello"}
SAID = {"role": "assistant", "content": "and to you"}
HOSTILE = [
    "'; DROP TABLE sessions; --", "\x00", "a\x00b", "", "%", "' OR 1=1 --", "x" * 100_000, "日本 😀", "\u202e", "None",
]  # fmt: skip


@pytest.fixture(params=["memory", "file"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sessions]:
    if request.param == "memory":
        yield MemorySessions()
        return
    kept = SqliteSessions(tmp_path / "sessions.db")
    yield kept
    kept.close()


async def test_a_session_goes_on(sessions: Sessions) -> None:
    assert await sessions.messages("s") == []
    assert await sessions.append("s", [USER, SAID], expected=0) == 2
    assert await sessions.append("s", [USER], expected=2) == 3
    kept = await sessions.messages("s")
    assert kept == [USER, SAID, USER]
    assert all(type(message) is EncodedMessage for message in kept)
    kept.clear()
    assert len(await sessions.messages("s")) == 3


async def test_another_tenants_session_is_never_seen(sessions: Sessions) -> None:
    await sessions.append("s", [USER], tenant="acme", expected=0)
    for other in ("other", None, ""):
        for use in (
            sessions.messages("s", tenant=other),
            sessions.append("s", [SAID], tenant=other, expected=0),
            sessions.append("s", [USER], tenant=other, expected=0),
            sessions.append("s", [], tenant=other, expected=1),
            sessions.delete("s", tenant=other),
        ):
            with pytest.raises(SessionError, match="another tenant") as caught:
                await use
            assert caught.value.problem == "taken"
            assert "acme" not in str(caught.value)
        assert await sessions.sessions(tenant=other) == []
    assert await sessions.messages("s", tenant="acme") == [USER]
    assert await sessions.sessions(tenant="acme") == ["s"]
    assert issubclass(SessionError, BrainError)


async def test_who_appends_to_what_has_changed_is_told(sessions: Sessions) -> None:
    await sessions.append("s", [USER, SAID], expected=0)
    for expected in (0, 1, 3):
        with pytest.raises(SessionError, match="holds 2 messages") as caught:
            await sessions.append("s", [USER], expected=expected)
        assert caught.value.problem == "changed"
    assert len(await sessions.messages("s")) == 2


async def test_what_was_appended_before_a_crash_is_not_appended_twice(sessions: Sessions) -> None:
    await sessions.append("s", [USER], expected=0)
    assert await sessions.append("s", [SAID, USER], expected=1) == 3
    assert await sessions.append("s", [dict(SAID), USER], expected=1) == 3
    assert await sessions.messages("s") == [USER, SAID, USER]


async def test_of_many_that_append_at_once_one_wins(sessions: Sessions) -> None:
    async def one(number: int) -> bool:
        try:
            await sessions.append("s", [{"role": "user", "content": str(number)}], expected=0)
        except SessionError as error:
            return error.problem != "changed"
        return True

    assert sum(await asyncio.gather(*map(one, range(30)))) == 1
    assert len(await sessions.messages("s")) == 1


async def test_the_latest_stands_first_and_what_is_deleted_is_gone(sessions: Sessions) -> None:
    for name in ("a", "b", "c"):
        await sessions.append(name, [USER], expected=0)
    await sessions.append("a", [SAID], expected=1)
    assert await sessions.sessions() == ["a", "c", "b"]
    await sessions.delete("a")
    await sessions.delete("never there")
    assert await sessions.sessions() == ["c", "b"]
    assert await sessions.messages("a") == []
    assert await sessions.append("a", [SAID], tenant="acme", expected=0) == 1


async def test_nothing_appended_begins_nothing(sessions: Sessions) -> None:
    assert await sessions.append("s", [], expected=0) == 0
    assert await sessions.sessions() == []


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_names_and_contents_are_data(sessions: Sessions, text: str) -> None:
    message = {"role": "user", "content": text, "name": text, text or "key": {"deep": [text]}}
    await sessions.append(text, [message], tenant=text, expected=0)
    await sessions.append("another", [USER], tenant="acme", expected=0)
    assert await sessions.messages(text, tenant=text) == [message]
    assert await sessions.sessions(tenant=text) == [text]
    await sessions.delete(text, tenant=text)
    assert await sessions.messages("another", tenant="acme") == [USER]


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        (ConfigurationError, ["text"]), (ConfigurationError, [{"role": "wizard"}]), (ConfigurationError, [{}]),
        (ConfigurationError, [{"role": ["user"]}]), (PromptError, [{"role": "user", "content": "\ud800"}]),
        (PromptError, [{"role": "user", "content": float("nan")}]),
        (PromptError, [{"role": "user", "content": object()}]),
    ],
)  # fmt: skip
async def test_what_is_no_message_is_refused_whole(
    sessions: Sessions, error: type[BrainError], messages: list[Any]
) -> None:
    with pytest.raises(error):
        await sessions.append("s", [USER, *messages], expected=0)
    assert await sessions.messages("s") == []


async def test_arguments_are_checked(sessions: Sessions) -> None:
    wrong: Any
    for wrong in (-1, True, "0", None):
        with pytest.raises(ConfigurationError, match="expected is how many"):
            await sessions.append("s", [USER], expected=wrong)
    for wrong in (3, None, b"s", "\ud800"):
        with pytest.raises(ConfigurationError, match="session"):
            await sessions.messages(wrong)
    for wrong in (3, b"s", "\ud800"):
        with pytest.raises(ConfigurationError, match="tenant"):
            await sessions.sessions(tenant=wrong)


async def test_a_large_message_is_kept(sessions: Sessions) -> None:
    large = {"role": "user", "content": 'ü"\\\n' * 3_000_000}
    await sessions.append("s", [large], expected=0)
    assert await sessions.messages("s") == [large]


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]


async def test_no_key_is_kept(tmp_path: Path) -> None:
    key = Secret("sk-canary-0123456789")
    kept = SqliteSessions(tmp_path / "sessions.db")
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": json.dumps({"key": key.reveal()})}}
    await kept.append("s", [USER, {"role": "assistant", "content": key.reveal(), "tool_calls": [call]}], expected=0)
    kept.close()
    assert all(key.reveal().encode() not in content for content in files(tmp_path))
    assert (await kept.messages("s"))[1]["content"] == "[key]"
    kept.close()


# The file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def filled(path: Path) -> None:
    kept = SqliteSessions(path)
    await kept.append("s", [USER, SAID], tenant="acme", expected=0)
    await kept.append("t", [USER], expected=0)
    await kept.aclose()


async def test_a_file_is_read_by_the_next_process_and_by_nobody_else(path: Path) -> None:
    await filled(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    kept = SqliteSessions(path)
    assert await kept.messages("s", tenant="acme") == [USER, SAID]
    await kept.aclose()
    assert await kept.messages("t") == [USER], "a later use opens it again"
    await kept.aclose()


CHILD = """
import asyncio, sys
from brain.conversations import SqliteSessions
from brain.errors import SessionError
from brain.storage import failpoints
"""


def test_processes_that_append_at_once_lose_nothing(path: Path) -> None:
    body = """
async def main(name):
    kept, done = SqliteSessions(sys.argv[1]), 0
    while done < 20:
        held = await kept.messages("s")
        try:
            await kept.append("s", [{"role": "user", "content": f"{name} {done}"}], expected=len(held))
            done += 1
        except SessionError as error:
            assert error.problem == "changed", error
    await kept.aclose()
asyncio.run(main(sys.argv[2]))
"""
    import threading

    ends: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: ends.append(run_python(body, path, n, child=CHILD))) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end.returncode for end in ends] == [0, 0, 0], [end.stderr for end in ends]

    async def read() -> list[str]:
        kept = SqliteSessions(path)
        texts = [message["content"] for message in await kept.messages("s")]
        await kept.aclose()
        return texts

    texts = asyncio.run(read())
    assert sorted(texts) == sorted(f"{name} {done}" for name in range(3) for done in range(20))
    assert [text for text in texts if text[0] == "1"] == [f"1 {done}" for done in range(20)]


@pytest.mark.parametrize("point", ["storage.before_commit", "storage.after_commit"])
async def test_killed_while_appending(path: Path, point: str) -> None:
    """All of it is there, or none, and appending again makes it whole."""
    await filled(path)
    body = f"""
async def main():
    kept = SqliteSessions(sys.argv[1])
    with failpoints({{{point!r}: "kill"}}):
        await kept.append("t", [{{"role": "user", "content": "a"}}, {{"role": "user", "content": "b"}}], expected=1)
asyncio.run(main())
"""
    ended = run_python(body, path, child=CHILD)
    assert ended.returncode != 0, "it was killed"
    kept = SqliteSessions(path)
    assert len(await kept.messages("t")) == (1 if point == "storage.before_commit" else 3)
    again = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert await kept.append("t", again, expected=1) == 3
    await kept.aclose()


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE messages SET message = '{'",
        "UPDATE messages SET message = '[1]'",
        "UPDATE messages SET message = '\"text\"'",
        'UPDATE messages SET message = \'{"role": "wizard"}\'',
        "UPDATE messages SET message = '{\"role\": [1]}'",
        'UPDATE messages SET message = \'{"role":"user","content":NaN}\'',
        'UPDATE messages SET message = \'{"role":"user","content":"\\ud800"}\'',
        "UPDATE messages SET message = x'ff'",
        "UPDATE messages SET message = 7",
        "UPDATE messages SET message = replace(hex(zeroblob(20000)), '00', '[')",
        "UPDATE messages SET place = place + 1",
        "DELETE FROM messages WHERE place = 1",
        "UPDATE sessions SET messages = 1",
        "UPDATE sessions SET messages = 'many'",
        "UPDATE sessions SET messages = -1",
        "UPDATE sessions SET tenant = x'61'",
    ],
)
async def test_rows_that_somebody_changed_are_refused(path: Path, statement: str) -> None:
    await filled(path)
    change(path, statement.replace("place = place + 1", "place = -place - 1"))
    kept = SqliteSessions(path)
    with pytest.raises(SessionError, match="damaged") as caught:
        await kept.messages("s", tenant="acme")
    assert caught.value.problem == "unusable"
    assert "ledger" not in str(caught.value)
    await kept.aclose()


def refused(path: Path) -> str:
    async def use() -> str:
        kept = SqliteSessions(path)
        with pytest.raises(SessionError) as caught:
            await kept.append("s", [USER], expected=0)
        await kept.aclose()
        assert caught.value.problem == "unusable"
        return str(caught.value)

    told = asyncio.run(use())
    assert "ledger" not in told.replace("ledger.db", "")
    return told


def test_files_that_are_not_ours_are_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_bytes(b"no database at all, but a text of some length" * 40)
    before = path.read_bytes()
    refused(path)
    assert path.read_bytes() == before
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.spent()
    ledger.close()
    assert "something else than sessions" in refused(tmp_path / "ledger.db")
    refused(tmp_path / "missing" / "sessions.db")
    refused(tmp_path)
    asyncio.run(filled(tmp_path / "changed.db"))
    change(tmp_path / "changed.db", "CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM messages; END")
    refused(tmp_path / "changed.db")


async def test_a_failing_disk_keeps_nothing_of_it(path: Path) -> None:
    await filled(path)
    kept = SqliteSessions(path)
    with failpoints({"storage.before_commit": "raise:OSError"}), pytest.raises(SessionError, match="file of sessions"):
        await kept.append("t", [SAID], expected=1)
    assert await kept.messages("t") == [USER]
    assert await kept.append("t", [SAID], expected=1) == 2
    await kept.aclose()


@pytest.mark.parametrize("wrong", ["", ":memory:", "a\0b"])
def test_a_path_is_a_path(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="name a file"):
        SqliteSessions(wrong)


def test_both_are_sessions(sessions: Sessions) -> None:
    methods = {name for name in vars(Sessions) if not name.startswith("_")}
    assert methods == {"messages", "append", "sessions", "delete"}
    assert "sessions" in repr(sessions).lower()
    uses: list[Callable[..., Any]] = [getattr(sessions, name) for name in methods]
    assert all(asyncio.iscoroutinefunction(use) for use in uses)
