"""The file under the ledger: who writes when, and what becomes of it."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from brain.errors import JournalCorrupt, LedgerError
from brain.storage import SqliteFile, failpoints, opening, workers

from .storing import ONE, Blocked, add, names


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteFile]:
    file = SqliteFile(None if request.param == "memory" else tmp_path / "ledger.db", ONE)
    yield file
    file.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    file = SqliteFile(tmp_path / "ledger.db", ONE)
    yield file
    file.close()


async def test_what_is_written_is_read_both_ways(store: SqliteFile) -> None:
    assert store.write_sync(add("a")) == 1
    assert await store.write(add("b")) == 2
    assert store.submit(add("c")).result() == 3
    assert store.read_sync(names) == ["a", "b", "c"]
    assert await store.read(names) == ["a", "b", "c"]


async def test_a_work_that_raises_is_undone_and_raises_what_it_raised(store: SqliteFile) -> None:
    class Mine(Exception):
        pass

    def half(connection: sqlite3.Connection) -> None:
        add("half")(connection)
        raise Mine

    store.write_sync(add("a"))
    with pytest.raises(Mine):
        store.write_sync(half)
    with pytest.raises(Mine):
        await store.write(half)
    with pytest.raises(sqlite3.IntegrityError):
        store.submit(add("a")).result()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        store.write_sync(lambda connection: connection.execute("SELECT * FROM nowhere"))
    assert store.write_sync(add("b")) == 2
    assert store.read_sync(names) == ["a", "b"]


def test_an_error_of_the_ledger_raised_by_a_work_is_its_own(store: SqliteFile) -> None:
    told = JournalCorrupt("row 7 is no JSON")

    def read(connection: sqlite3.Connection) -> None:
        raise told

    for use in (store.write_sync, store.read_sync):
        with pytest.raises(JournalCorrupt) as caught:
            use(read)
        assert caught.value is told


async def test_what_a_read_writes_is_not_kept(store: SqliteFile) -> None:
    for read in (store.read_sync, lambda work: asyncio.run(store.read(work))):
        with nullcontext() if store.path is None else pytest.raises(sqlite3.OperationalError, match="readonly"):
            await asyncio.to_thread(read, add("a"))
    assert store.read_sync(names) == []
    assert store.write_sync(add("c")) == 1


def test_a_read_sees_one_moment(file: SqliteFile) -> None:
    file.write_sync(add("a"))

    def twice(connection: sqlite3.Connection) -> list[list[str]]:
        before = names(connection)
        other = SqliteFile(file.path, ONE)
        other.write_sync(add("b"))
        other.close()
        return [before, names(connection)]

    assert file.read_sync(twice) == [["a"], ["a"]]
    assert file.read_sync(names) == ["a", "b"]


@pytest.mark.parametrize("outer", ["write_sync", "read_sync"])
@pytest.mark.parametrize("inner", ["write_sync", "submit", "read_sync", "close"])
def test_a_work_cannot_use_the_file_itself(store: SqliteFile, outer: str, inner: str) -> None:
    def work(connection: sqlite3.Connection) -> None:
        use = getattr(store, inner)
        use() if inner == "close" else use(names)

    with pytest.raises(RuntimeError, match="must not use the ledger's file itself"):
        getattr(store, outer)(work)
    assert store.write_sync(add("a")) == 1


def test_a_work_that_ends_the_transaction_is_told(store: SqliteFile) -> None:
    for end in ("COMMIT", "ROLLBACK"):
        with pytest.raises(LedgerError):
            store.write_sync(lambda connection, end=end: connection.execute(end))  # type: ignore[misc]
    assert store.write_sync(add("a")) == 1


def test_an_interrupted_work_in_memory_leaves_nothing() -> None:
    store = SqliteFile(None, ONE)

    def interrupted(connection: sqlite3.Connection) -> None:
        add("a")(connection)
        raise KeyboardInterrupt

    for use in (store.write_sync, store.submit):
        with pytest.raises(KeyboardInterrupt):
            use(interrupted)
    assert store.read_sync(names) == []


# One transaction for what waits


def test_what_waits_is_written_together_and_each_is_undone_alone(file: SqliteFile) -> None:
    file.write_sync(add("a"))
    with failpoints() as seen:
        blocked = Blocked(file)
        futures = [file.submit(add("a" if number == 4 else f"n{number}")) for number in range(10)]
        blocked.release()
        results = [future.exception(60) for future in futures]
    assert [type(error) for error in results] == [
        sqlite3.IntegrityError if number == 4 else type(None) for number in range(10)
    ]
    assert seen.reached["storage.before_commit"] == 2, "the one that was under way, and all that waited"
    assert file.read_sync(names) == ["a", *(f"n{number}" for number in range(10) if number != 4)]


def test_more_than_fits_one_transaction_keeps_its_order(file: SqliteFile) -> None:
    blocked = Blocked(file)
    many = 3 * workers.MOST + 7
    futures = [file.submit(add(str(number))) for number in range(many)]
    blocked.release()
    assert [future.result(60) for future in futures] == list(range(1, many + 1))


def test_a_future_is_done_after_the_commit_and_not_before(store: SqliteFile) -> None:
    seen: list[bool] = []
    futures: list[Any] = []
    with failpoints({"storage.before_commit": lambda: seen.extend(future.done() for future in futures)}):
        if store.path is None:
            store.submit(add("a"))  # runs at once: there is no future before its commit
            return
        blocked = Blocked(store)
        futures.append(store.submit(add("a")))
        blocked.release()
        futures[0].result(60)
    assert seen == [False, False]
    with sqlite3.connect(store.path) as other:
        assert names(other) == ["a"]


def test_when_the_commit_fails_all_of_it_is_told_and_nothing_kept(store: SqliteFile) -> None:
    store.write_sync(add("a"))
    with failpoints({"storage.before_commit@1": "raise:OSError", "storage.before_commit@2": "raise:OSError"}):
        if store.path is None:
            futures = [store.submit(add("b")), store.submit(add("c"))]
        else:
            blocked = Blocked(store)
            futures = [store.submit(add("b")), store.submit(add("c"))]
            blocked.release()
        errors = [future.exception(60) for future in futures]
    assert all(type(error) is LedgerError for error in errors)
    assert errors[0] is not errors[1]
    assert all(isinstance(error.__cause__, OSError) for error in errors if error)
    assert store.read_sync(names) == ["a"]
    assert store.write_sync(add("b")) == 2


async def test_a_cancellation_ends_the_waiting_and_not_the_writing(file: SqliteFile) -> None:
    file.write_sync(add("a"))
    blocked = Blocked(file)
    waiting = asyncio.create_task(file.write(add("b")))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    future = file.submit(add("c"))
    assert not future.cancel()
    blocked.release()
    assert future.result(60) == 3
    assert file.read_sync(names) == ["a", "b", "c"]


async def test_the_event_loop_does_not_wait_for_the_disk(file: SqliteFile) -> None:
    file.write_sync(add("a"))
    other = sqlite3.connect(str(file.path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(file.write(add("b")))
    assert await file.read(names) == ["a"], "a reader does not wait for a writer"
    other.execute("ROLLBACK")  # a loop that waited for the disk would never come here
    assert await waiting == 2
    other.close()


def test_a_lock_that_is_kept_too_long_is_told_with_who_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "PATIENCE", 0.05)
    file = SqliteFile(tmp_path / "ledger.db", ONE)
    file.write_sync(add("a"))
    body = "import sqlite3; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE')"
    child = subprocess.Popen(
        [sys.executable, "-c", f"import sys; {body}; print('locked', flush=True); sys.stdin.read()", str(file.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline()
        futures = [file.submit(add("b")), file.submit(add("c"))]
        for future in futures:
            with pytest.raises(LedgerError, match="locked") as caught:
                future.result(60)
        if sys.platform == "linux":
            assert f"by process {child.pid}" in str(caught.value)
    finally:
        child.communicate()
    assert file.write_sync(add("d")) == 2
    file.close()


def test_many_threads_and_loops_lose_nothing(store: SqliteFile) -> None:
    def count(connection: sqlite3.Connection) -> None:
        (now,) = connection.execute("SELECT coalesce(max(id), 0) FROM items").fetchone()
        connection.execute("INSERT INTO items (id) VALUES (?)", (now + 1,))

    async def loop() -> None:
        await asyncio.gather(*(store.write(count) for _ in range(25)))

    def thread() -> None:
        for _ in range(25):
            store.write_sync(count)

    threads = [threading.Thread(target=target) for target in (thread, lambda: asyncio.run(loop())) * 4]
    for each in threads:
        each.start()
    for each in threads:
        each.join(100)
    assert store.read_sync(lambda connection: connection.execute("SELECT count(*) FROM items").fetchone()) == (200,)


def test_closing_waits_for_what_was_submitted_and_may_be_repeated(file: SqliteFile, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    blocked = Blocked(file)
    future = file.submit(add("a"))
    closing = threading.Thread(target=file.close)
    closing.start()
    blocked.release()
    closing.join(60)
    assert not closing.is_alive()
    assert future.done()
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]
    assert not {thread for thread in threading.enumerate() if thread.name.startswith("brain ledger")} - before
    assert file.write_sync(add("b")) == 2
    assert file.read_sync(names) == ["a", "b"]


def test_a_thread_with_nothing_to_do_ends_and_another_is_had(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE", 0.001)
    for number in range(20):
        file.write_sync(add(str(number)))
        time.sleep(0.002 * (number % 3))
    assert len(file.read_sync(names)) == 20


def test_a_callback_may_write_and_wait(file: SqliteFile) -> None:
    done = threading.Event()
    told: list[object] = []

    def callback(future: object) -> None:
        told.append(file.submit(add("b")))
        told.append(file.write_sync(add("c")))
        file.close()
        done.set()

    file.submit(add("a")).add_done_callback(callback)
    assert done.wait(60)
    file.close()
    assert sorted(file.read_sync(names)) == ["a", "b", "c"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such signals on Windows")
def test_a_signal_handler_may_submit(file: SqliteFile) -> None:
    futures: list[Any] = []
    numbers = itertools.count()
    before = signal.signal(signal.SIGALRM, lambda *_: futures.append(file.submit(add(f"signal {next(numbers)}"))))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
    try:
        mine = [file.submit(add(str(number))) for number in range(3000)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for future in [*mine, *futures]:
        assert future.exception(60) is None
    assert len(file.read_sync(names)) == 3000 + len(futures)


async def test_whatever_a_work_raises_is_told(store: SqliteFile) -> None:
    for kind in (StopIteration, StopAsyncIteration, GeneratorExit, SystemExit):

        def work(connection: sqlite3.Connection, kind: type[BaseException] = kind) -> None:
            add("x")(connection)
            raise kind

        with pytest.raises((RuntimeError, kind)):
            await store.write(work)
        with pytest.raises((RuntimeError, kind)):
            await store.read(lambda connection, kind=kind: (_ for _ in ()).throw(kind))  # type: ignore[misc]
    assert store.read_sync(names) == []


def test_without_threads_it_is_written_all_the_same(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    assert file.submit(add("a")).result(0) == 1


@pytest.mark.parametrize(("durable", "synchronous"), [(False, 1), (True, 2)])
def test_durable_means_synchronous(tmp_path: Path, durable: bool, synchronous: int) -> None:
    file = SqliteFile(tmp_path / "ledger.db", ONE, durable=durable)
    read = [
        file.write_sync(lambda connection, name=name: connection.execute(f"PRAGMA {name}").fetchone()[0])  # type: ignore[misc]
        for name in ("synchronous", "journal_mode", "trusted_schema")
    ]
    assert read == [synchronous, "wal", 0]
    file.close()
