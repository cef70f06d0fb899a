"""Disks that fill up, fail or may only be read, files that are damaged, and processes killed while they write."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from brain.errors import JournalCorrupt, LedgerError
from brain.storage import Schema, SqliteFile, failpoints, opening
from tests.brain import storing

ROOT = Path(__file__).parents[2]

STATEMENTS = (
    "CREATE TABLE rows (id INTEGER PRIMARY KEY, run TEXT NOT NULL, text TEXT NOT NULL)",
    "CREATE INDEX rows_of_run ON rows (run)",
)
SCHEMA = Schema(0x74657374, 1, STATEMENTS)

CHILD = f"""
import os, sys
from brain.errors import LedgerError
from brain.storage import Schema, SqliteFile
SCHEMA = Schema(0x74657374, 1, {STATEMENTS!r})
def add(text):
    return lambda c: c.execute("INSERT INTO rows (run, text) VALUES ('r', ?)", (text,)).lastrowid
"""


def add(connection: sqlite3.Connection, text: str = "x") -> int | None:
    return connection.execute("INSERT INTO rows (run, text) VALUES ('r', ?)", (text,)).lastrowid


def count(connection: sqlite3.Connection) -> int:
    ((found,),) = connection.execute("SELECT count(*) FROM rows")
    return int(found)


def everything(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    rows = connection.execute("SELECT id, run, text FROM rows ORDER BY id").fetchall()
    connection.execute("SELECT run, count(*) FROM rows GROUP BY run").fetchall()
    return rows


run_python = partial(storing.run_python, child=CHILD)


@contextmanager
def nobody() -> Iterator[None]:
    """As a user to whom permissions apply."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# Full disks


@pytest.mark.parametrize("place", ["memory", "file"])
def test_6_a_full_disk_is_told_and_leaves_no_half(tmp_path: Path, place: str) -> None:
    pages = 40

    def few_pages(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    file = SqliteFile(
        None if place == "memory" else tmp_path / "ledger.db", Schema(0x74657374, 1, STATEMENTS, functions=few_pages)
    )

    def two(connection: sqlite3.Connection) -> None:
        add(connection, "first half")
        add(connection, "x" * 50_000)

    told = [file.submit(two).exception() for _ in range(10)]
    written = told.count(None)
    assert 0 < written < 10
    for error in told[written:]:
        assert type(error) is LedgerError
        assert "full: make room" in str(error)
    assert file.read_sync(count) == 2 * written
    file.write_sync(add)  # a small one still fits
    assert file.read_sync(count) == 2 * written + 1
    file.close()


def test_6_a_full_disk_tells_all_whose_writes_it_undid(tmp_path: Path) -> None:
    def few_pages(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 20")

    file = SqliteFile(tmp_path / "ledger.db", Schema(0x74657374, 1, STATEMENTS, functions=few_pages))
    begun, go = threading.Event(), threading.Event()
    first = file.submit(lambda connection: (begun.set(), go.wait(60)))
    assert begun.wait(60)
    futures = [
        file.submit(lambda connection, size=size: add(connection, "x" * size))  # type: ignore[misc]
        for size in (1, 1, 1_000_000, 1, 1)
    ]
    go.set()
    first.result(60)
    told = [future.exception(60) for future in futures]
    kept = [error is None for error in told]
    assert not kept[2]
    assert kept[3:] == [True, True], "what came after it is written in another transaction"
    assert all(type(error) is LedgerError for error in told if error is not None)
    assert file.read_sync(count) == sum(kept), "what was told to be written is there, and nothing else"
    file.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits of this kind on Windows")
def test_6_a_file_system_that_takes_no_more_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    body = """
import resource
file = SqliteFile(sys.argv[1], SCHEMA)
file.write_sync(add("0"))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    n = 1
    while True:
        file.write_sync(add("x" * 3000))
        n += 1
except LedgerError as error:
    print(n, file.read_sync(lambda c: c.execute("SELECT count(*) FROM rows").fetchone()[0]), error, flush=True)
os._exit(0)
"""
    done = run_python(body, tmp_path / "ledger.db")
    assert done.returncode == 0, done.stderr
    acknowledged, seen, words = done.stdout.split(" ", 2)
    assert int(acknowledged) > 10
    assert acknowledged == seen
    assert re.search("make room|see to it", words)
    file = SqliteFile(tmp_path / "ledger.db", SCHEMA)
    assert file.read_sync(count) == int(acknowledged)
    file.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits of this kind on Windows")
@pytest.mark.parametrize("room", [0, 100, 4096, 10_000])
def test_6_a_file_that_cannot_be_made_is_not_left_behind(tmp_path: Path, room: int) -> None:
    body = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    SqliteFile(sys.argv[1], SCHEMA).write_sync(add("x"))
except LedgerError as error:
    print(error)
"""
    done = run_python(body, tmp_path / "ledger.db", room)
    assert "cannot be used" in done.stdout, done.stderr
    if room <= 4096:
        assert list(tmp_path.iterdir()) == []
    file = SqliteFile(tmp_path / "ledger.db", SCHEMA)
    assert file.write_sync(add) == 1
    file.close()


@pytest.mark.parametrize("kind", ["OSError", "sqlite3.OperationalError", "MemoryError"])
@pytest.mark.parametrize("place", ["memory", "file"])
def test_6_a_disk_that_fails_at_the_commit_keeps_nothing_of_it(tmp_path: Path, place: str, kind: str) -> None:
    file = SqliteFile(None if place == "memory" else tmp_path / "ledger.db", SCHEMA)
    file.write_sync(add)
    with failpoints({"storage.before_commit": f"raise:{kind}"}), pytest.raises(LedgerError, match="cannot be used"):
        file.write_sync(add)
    assert file.read_sync(count) == 1
    assert file.write_sync(add) == 2
    file.close()


# What may only be read


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are others on Windows")
@pytest.mark.parametrize("what", ["folder", "folder of a new file", "file", "hidden folder", "hidden file"])
def test_6_what_may_not_be_written_is_refused_before_any_effect(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "ledger.db"
    if what != "folder of a new file":
        file = SqliteFile(path, SCHEMA)
        file.write_sync(add)
        file.close()
    # pytest's folders are one user's alone; others must come as far as here.
    opened = [each for each in tmp_path.parents[:3] if each.stat().st_uid == os.geteuid() and each != Path("/")]
    modes = [(each, each.stat().st_mode) for each in [*opened, tmp_path]]
    for each, _ in modes:
        each.chmod(0o755)
    os.chmod(path if what.endswith("hidden file") or what == "file" else folder, 0o777)
    os.chmod(path, 0o666) if path.exists() else None
    os.chmod(folder, 0o777)
    target = path if what in ("file", "hidden file") else folder
    os.chmod(target, {"file": 0o444, "hidden file": 0, "hidden folder": 0}.get(what, 0o555))
    before = [(each.name, each.stat().st_mtime_ns, each.read_bytes()) for each in folder.iterdir()]
    try:
        with nobody():
            store = SqliteFile(path, SCHEMA)
            for use in (store.write_sync, store.read_sync, lambda work: store.claim()):
                with pytest.raises(LedgerError, match="writable") as caught:
                    use(count)
                assert type(caught.value) is LedgerError
    finally:
        os.chmod(folder, 0o755)
        for each, mode in modes:
            each.chmod(mode)
    assert [(each.name, each.stat().st_mtime_ns, each.read_bytes()) for each in folder.iterdir()] == before


# Damage


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real file of several pages, closed."""
    path = tmp_path_factory.mktemp("sound") / "ledger.db"
    file = SqliteFile(path, SCHEMA)
    file.write_sync(lambda connection: [add(connection, f"{number} " * 40) for number in range(200)])
    file.close()
    return path.read_bytes()


def refused(path: Path) -> LedgerError | None:
    """What a damaged file is refused with; every use of it ends well or in one kind of error, closing it too."""
    file = SqliteFile(path, SCHEMA)
    try:
        file.read_sync(everything)
        file.write_sync(add)
        file.write_sync(lambda connection: connection.execute("UPDATE rows SET run = 's'"))
    except LedgerError as error:
        return error
    finally:
        file.close()
    return None


def test_7_a_file_without_damage_is_not_refused(tmp_path: Path, sound: bytes) -> None:
    (tmp_path / "ledger.db").write_bytes(sound)
    assert refused(tmp_path / "ledger.db") is None


def test_7_a_truncated_file_is_refused(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "ledger.db"
    for size in [1, 15, 16, 99, 100, 511, 512, 1000, 4095, *range(4096, len(sound), 3001)]:
        path.write_bytes(sound[:size])
        with pytest.raises(JournalCorrupt):
            SqliteFile(path, SCHEMA).read_sync(everything)
        assert path.read_bytes() == sound[:size], "it is left as it was"
        assert [each.name for each in tmp_path.iterdir()] == ["ledger.db"]


def test_7_every_bit_of_the_header_flipped(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "ledger.db"
    told = {}
    for bit in range(800):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        error = refused(path)
        if error is not None:
            told.setdefault(bit // 8, set()).add(type(error))
    elsewhere = [*range(60, 64), *range(68, 72)]  # a later version, or the mark of something else: not ours to judge
    assert {byte for byte, kinds in told.items() if kinds != {JournalCorrupt}} == set(elsewhere)
    assert set(range(24)) <= told.keys() | {20}, "from its first bytes on, whatever SQLite reads"


def test_7_random_damage_is_refused_or_harmless(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "ledger.db"
    chance = random.Random(7)
    told = []
    for _ in range(300):
        damaged = bytearray(sound)
        kind = chance.randrange(4)
        for _ in range(1 + chance.randrange(3)):
            at = chance.randrange(len(sound))
            if kind == 0:
                damaged[at] ^= 1 << chance.randrange(8)
            elif kind == 1:
                damaged[at : at + 200] = chance.randbytes(min(200, len(sound) - at))
            elif kind == 2:
                page = at // 4096 * 4096
                damaged[page : page + 4096] = bytes(4096)
            else:
                one, two = at // 4096 * 4096, chance.randrange(len(sound)) // 4096 * 4096
                damaged[one : one + 4096] = sound[two : two + 4096]
        path.write_bytes(damaged)
        told.append(refused(path))
    for error in filter(None, told):
        assert type(error) is JournalCorrupt or re.search("something else|later version", str(error))
        assert str(path) in str(error)
    assert 100 < len(told) - told.count(None) < 300


def test_7_garbage_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    chance = random.Random(11)
    for size in (1, 100, 512, 4096, 20_000):
        for head in (b"", b"SQLite format 3\0"):
            garbage = head + chance.randbytes(size)
            path.write_bytes(garbage)
            with pytest.raises(LedgerError):
                SqliteFile(path, SCHEMA).write_sync(add)
            assert path.read_bytes() == garbage
            assert [each.name for each in tmp_path.iterdir()] == ["ledger.db"]


def test_7_damage_in_a_file_too_large_to_be_read_at_opening_is_found_when_it_is_met(
    tmp_path: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "CHECKED", 0)
    path = tmp_path / "ledger.db"
    damaged = bytearray(sound)
    damaged[3 * 4096 :] = b"\xff" * (len(sound) - 3 * 4096)
    path.write_bytes(damaged)
    file = SqliteFile(path, SCHEMA)
    for use in (file.read_sync, file.write_sync):
        with pytest.raises(JournalCorrupt, match="put a copy back"):
            use(everything)
    file.close()


def killed(path: Path, rows: int, place: str, number: int) -> subprocess.CompletedProcess[str]:
    body = """
file = SqliteFile(sys.argv[1], SCHEMA)
for n in range(int(sys.argv[2])):
    print(file.write_sync(add(str(n))), flush=True)
"""
    return run_python(body, path, rows, BRAIN_FAILPOINTS=f"storage.{place}@{number}=kill")


@pytest.mark.skipif(sys.platform == "win32", reason="a process ends there with another status")
@pytest.mark.parametrize("place", ["before_commit", "after_commit"])
def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path, place: str) -> None:
    done = killed(tmp_path / "ledger.db", 10, place, 6)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["1", "2", "3", "4", "5"]
    file = SqliteFile(tmp_path / "ledger.db", SCHEMA)
    texts = file.read_sync(lambda connection: [text for (text,) in connection.execute("SELECT text FROM rows")])
    assert texts == [str(number) for number in range(6 if place == "after_commit" else 5)]
    assert file.write_sync(add) == len(texts) + 1
    file.close()


@pytest.mark.skipif(sys.platform == "win32", reason="a process ends there with another status")
def test_7_a_damaged_log_gives_what_was_written_before_the_damage_or_is_refused(tmp_path: Path) -> None:
    """SQLite checks each page of its log; from a wrong one on, all of it counts as never written."""
    folder = tmp_path / "killed"
    folder.mkdir()
    assert killed(folder / "ledger.db", 40, "before_commit", 30).returncode == -signal.SIGKILL
    main, log = ((folder / name).read_bytes() for name in ("ledger.db", "ledger.db-wal"))
    assert log
    chance = random.Random(3)
    seen = set()
    path = tmp_path / "ledger.db"
    for number in range(120):
        damaged = bytearray(log)
        if number % 3:
            damaged[chance.randrange(len(log))] ^= 1 << chance.randrange(8)
        else:
            damaged = damaged[: chance.randrange(len(log))]
        for name in ("ledger.db-wal", "ledger.db-shm"):
            with suppress(FileNotFoundError):
                os.unlink(tmp_path / name)
        path.write_bytes(main)
        path.with_name("ledger.db-wal").write_bytes(damaged)
        file = SqliteFile(path, SCHEMA)
        try:
            texts = [text for _, _, text in file.read_sync(everything)]
        except JournalCorrupt:
            continue
        finally:
            file.close()
        assert texts == [str(each) for each in range(len(texts))]
        seen.add(len(texts))
    assert max(seen) <= 29
    assert len(seen) > 10


@pytest.mark.skipif(sys.platform == "win32", reason="a process ends there with another status")
def test_7_a_log_that_came_half_way_into_the_file_is_no_damage(tmp_path: Path) -> None:
    """As a kill or a full disk leaves it: the first page tells of more pages than there are yet."""
    path, whole = tmp_path / "ledger.db", tmp_path / "whole.db"
    assert killed(path, 400, "before_commit", 390).returncode == -signal.SIGKILL
    before = path.read_bytes()
    whole.write_bytes(before)
    whole.with_name("whole.db-wal").write_bytes(path.with_name("ledger.db-wal").read_bytes())
    with closing(sqlite3.connect(whole)) as connection:
        connection.execute("PRAGMA wal_checkpoint")
    assert len(whole.read_bytes()) > len(before)
    path.write_bytes(whole.read_bytes()[:4096] + before[4096:])
    file = SqliteFile(path, SCHEMA)
    assert file.read_sync(count) == 389
    assert file.write_sync(add) == 390
    file.close()


# Forks, threads and ends: whatever happens, nothing waits for ever

STORMS = {
    "forks while threads write": """
import multiprocessing, threading
file = SqliteFile(sys.argv[1], SCHEMA)
stop = threading.Event()
written = []
def busy():
    n = 0
    while not stop.is_set():
        file.write_sync(add("busy"))
        file.read_sync(lambda c: c.execute("SELECT count(*) FROM rows").fetchone())
        n += 1
    written.append(n)
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads: thread.start()
def child():
    for _ in range(10): file.submit(add("child"))
    file.close()
context = multiprocessing.get_context("fork")
for _ in range(5):
    children = [context.Process(target=child) for _ in range(2)]
    for each in children: each.start()
    for each in children: each.join()
    assert [each.exitcode for each in children] == [0, 0]
stop.set()
for thread in threads: thread.join()
def counted(text):
    return file.read_sync(lambda c: c.execute("SELECT count(*) FROM rows WHERE text = ?", (text,)).fetchone()[0])
print(counted("child"), counted("busy") == sum(written))
""",
    "closing while threads write": """
import threading
file = SqliteFile(sys.argv[1], SCHEMA)
def busy():
    for _ in range(50): file.write_sync(add("child"))
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads: thread.start()
while any(thread.is_alive() for thread in threads): file.close()
print(file.read_sync(lambda c: c.execute("SELECT count(*) FROM rows").fetchone()[0]), True)
""",
    "loops in threads": """
import asyncio, threading
file = SqliteFile(sys.argv[1], SCHEMA)
async def main():
    async def one():
        await file.write(add("x"))
        await file.read(lambda c: c.execute("SELECT count(*) FROM rows").fetchone())
    await asyncio.gather(*(one() for _ in range(25)))
threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(file.read_sync(lambda c: c.execute("SELECT count(*) FROM rows").fetchone()[0]), True)
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked on Windows")
@pytest.mark.parametrize("case", STORMS)
def test_44_nothing_waits_for_ever_and_nothing_is_lost(tmp_path: Path, case: str) -> None:
    done = run_python(STORMS[case], tmp_path / "ledger.db")
    assert (done.returncode, done.stdout) == (0, "100 True\n"), done.stderr
    file = SqliteFile(tmp_path / "ledger.db", SCHEMA)
    assert file.read_sync(lambda connection: connection.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
    file.close()
