"""The file under the ledger: who writes when, what is refused before it is touched, and who still lives."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from brain.errors import ConfigurationError, JournalCorrupt, LedgerError
from brain.storage import Schema, SqliteFile, complaints, database, failpoint, failpoints, filesystems, opening, workers
from brain.storage.failpoints import Failpoints, parse

ROOT = Path(__file__).parents[2]
FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked on Windows")

ITEMS = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE)"
ONE = Schema(0x74657374, 1, (ITEMS,))
TWO = Schema(
    0x74657374,
    2,
    ("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size TEXT)",),
    {1: ("ALTER TABLE items ADD COLUMN size TEXT",)},
)
THREE = Schema(
    0x74657374,
    3,
    (
        "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size TEXT)",
        "CREATE INDEX things_by_size ON things (size)",
    ),
    {
        1: ("ALTER TABLE items ADD COLUMN size TEXT",),
        2: (
            "ALTER TABLE items RENAME TO things",
            "UPDATE things SET size = 'old'",
            "CREATE INDEX things_by_size ON things (size)",
        ),
    },
)

CHILD = f"""
import asyncio, os, sys, threading
from brain.storage import Schema, SqliteFile, failpoint, failpoints
ONE = Schema(0x74657374, 1, ({ITEMS!r},))
def add(name):
    return lambda c: c.execute("INSERT INTO items (name) VALUES (?)", (name,)).lastrowid
"""


def add(name: str) -> Callable[[sqlite3.Connection], int | None]:
    return lambda connection: connection.execute("INSERT INTO items (name) VALUES (?)", (name,)).lastrowid


def names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM items ORDER BY id")]


def run_python(body: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD + body, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
    )


def looks(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Every file of a folder, and the folder: its bytes, mode and time of change."""
    return {
        str(path): (
            hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest(),
            path.lstat().st_mtime_ns,
            path.lstat().st_mode,
        )
        for path in [folder, *sorted(folder.rglob("*"))]
    }


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


class Blocked:
    """The writer kept busy, until released."""

    def __init__(self, file: SqliteFile) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        self.future = file.submit(self._wait)
        assert self._begun.wait(60)

    def _wait(self, connection: sqlite3.Connection) -> None:
        self._begun.set()
        assert self._go.wait(60)

    def release(self) -> None:
        self._go.set()


# What is written


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
    before = signal.signal(signal.SIGALRM, lambda *_: futures.append(file.submit(add(f"signal {len(futures)}"))))
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


# Opening


def test_nothing_is_opened_before_it_is_used(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "no" / "ledger.db", ONE)
    assert file.path == str(tmp_path / "no" / "ledger.db")
    with pytest.raises(LedgerError, match="does not exist: make it"):
        file.write_sync(add("a"))
    (tmp_path / "no").mkdir()
    assert file.write_sync(add("a")) == 1
    file.close()


def test_a_new_file_is_its_owners_alone(file: SqliteFile, tmp_path: Path) -> None:
    file.write_sync(add("a"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes) == {"ledger.db", "ledger.db-wal", "ledger.db-shm"}
    if sys.platform != "win32":
        assert set(modes.values()) == {0o600}


def test_an_empty_file_is_new_and_a_link_leads_on(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch(mode=0o640)
    (tmp_path / "link.db").symlink_to(tmp_path / "empty.db")
    for path in ("empty.db", "link.db"):
        file = SqliteFile(tmp_path / path, ONE)
        file.write_sync(add(path))
        file.close()
    linked = SqliteFile(tmp_path / "link.db", ONE)
    assert linked.read_sync(names) == ["empty.db", "link.db"]
    assert linked.owner == SqliteFile(tmp_path / "empty.db", ONE).owner
    linked.close()


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(LedgerError, match="is no path"):
        SqliteFile(path, ONE)


@pytest.mark.parametrize("name", ["a b%20?mode=ro#x.db", "ä'\".db", "file:x.db", "-x.db"])
def test_a_strange_name_is_a_name(tmp_path: Path, name: str) -> None:
    file = SqliteFile(tmp_path / name, ONE)
    file.write_sync(add("a"))
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert file.read_sync(names) == ["a"]
    file.close()


def plain(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def made(path: Path, schema: Schema = ONE) -> Path:
    file = SqliteFile(path, schema)
    if schema is ONE:
        file.write_sync(add("a"))
    else:
        file.read_sync(lambda connection: None)
    file.close()
    return path


def foreign_log(path: Path) -> None:
    """A database whose tables are all in its log still, as its process left it when it was killed."""
    copy = path.with_suffix(".copy")
    connection = sqlite3.connect(copy, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE theirs (a)")
    path.write_bytes(copy.read_bytes())
    path.with_name(f"{path.name}-wal").write_bytes(copy.with_name(f"{copy.name}-wal").read_bytes())
    connection.close()
    copy.unlink()


REFUSED: dict[str, tuple[Callable[[Path], object], type[LedgerError], str]] = {
    "a folder": (lambda path: path.mkdir(), LedgerError, "is a folder"),
    "another database": (lambda path: plain(path, "CREATE TABLE a (b)"), LedgerError, "something else than a ledger"),
    "another's database": (
        lambda path: plain(path, "PRAGMA application_id = 7", "CREATE TABLE a (b)"),
        LedgerError,
        "something else than a ledger",
    ),
    "another's without tables": (
        lambda path: plain(path, "PRAGMA user_version = 1"),
        LedgerError,
        "something else than a ledger",
    ),
    "another's in its log": (foreign_log, LedgerError, "something else than a ledger"),
    "text": (lambda path: path.write_text("dear diary, " * 1000), JournalCorrupt, "not a database"),
    "a short text": (lambda path: path.write_text("x"), JournalCorrupt, "not a database"),
    "zeros": (lambda path: path.write_bytes(bytes(8192)), JournalCorrupt, "not a database"),
    "a later version": (lambda path: made(path, TWO), LedgerError, "written by a later version"),
    "a log without its file": (
        lambda path: (path.touch(), path.with_name(f"{path.name}-wal").write_bytes(b"x" * 100)),
        JournalCorrupt,
        "it is empty",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused_is_not_touched(tmp_path: Path, case: str) -> None:
    make, kind, words = REFUSED[case]
    make(tmp_path / "ledger.db")
    before = looks(tmp_path)
    file = SqliteFile(tmp_path / "ledger.db", ONE)
    for use in (file.write_sync, file.read_sync, lambda work: file.claim()):
        with pytest.raises(LedgerError, match=words) as caught:
            use(names)
        assert type(caught.value) is kind
        assert str(tmp_path) in str(caught.value)
    with pytest.raises(kind, match=words):
        await file.write(names)
    with pytest.raises(kind, match=words):
        await file.read(names)
    file.close()
    assert looks(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders on Windows")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match="no regular file"):
        SqliteFile(tmp_path / "ledger.db", ONE).write_sync(names)


PLANTED = {
    "a trigger": "CREATE TRIGGER spy AFTER INSERT ON items BEGIN DELETE FROM items; END",
    "a view": "CREATE VIEW spy AS SELECT 1",
    "an index": "CREATE INDEX spy ON items (upper(name))",
    "a table": "CREATE TABLE spy (a)",
    "a column": "ALTER TABLE items ADD COLUMN spy AS (upper(name))",
    "a table gone": "DROP TABLE items",
}


@pytest.mark.parametrize("statement", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("when", ["before", "while open"])
def test_what_somebody_planted_is_never_executed(tmp_path: Path, statement: str, when: str) -> None:
    path = made(tmp_path / "ledger.db")
    file = SqliteFile(path, ONE)
    if when == "while open":
        assert file.write_sync(names) == file.read_sync(names) == ["a"]
    plain(path, statement)
    for use in (file.write_sync, file.read_sync):
        with pytest.raises(JournalCorrupt, match="its tables are not those"):
            use(names)
    file.close()


def test_a_table_that_is_written_otherwise_is_no_table_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    plain(path, ITEMS.replace("UNIQUE", "UNIQUE CHECK (length(name) < 9)"))
    plain(path, f"PRAGMA application_id = {ONE.application_id}", "PRAGMA user_version = 1")
    with pytest.raises(JournalCorrupt, match="its tables are not those"):
        SqliteFile(path, ONE).read_sync(names)


def test_statistics_are_welcome(tmp_path: Path) -> None:
    path = made(tmp_path / "ledger.db")
    file = SqliteFile(path, ONE)
    assert file.read_sync(names) == ["a"]
    plain(path, "ANALYZE")
    assert file.read_sync(names) == ["a"]
    assert file.write_sync(add("b")) == 2
    file.close()


def test_a_file_that_is_removed_while_it_is_used_is_missed(file: SqliteFile) -> None:
    file.write_sync(add("a"))
    os.rename(str(file.path), f"{file.path}.old")
    for use in (file.write_sync, file.read_sync) * 2:
        with pytest.raises(LedgerError, match="removed or replaced"):
            use(names)
    assert not os.path.exists(str(file.path))
    file.close()
    assert file.read_sync(names) == []


def test_text_that_is_no_text_is_damage(file: SqliteFile) -> None:
    file.write_sync(lambda connection: connection.execute("INSERT INTO items (name) VALUES (CAST(x'ff41' AS TEXT))"))
    for use in (file.read_sync, file.write_sync):
        with pytest.raises(JournalCorrupt):
            use(names)


def test_another_process_that_looks_does_not_let_go_of_our_locks(file: SqliteFile) -> None:
    """POSIX drops all locks of a process on a file when any descriptor of it is closed."""
    file.write_sync(add("a"))
    again = SqliteFile(file.path, ONE)
    assert again.read_sync(names) == ["a"]
    again.close()
    # Were the locks gone, this process would believe to be the last and remove the log.
    done = run_python("file = SqliteFile(sys.argv[1], ONE); file.write_sync(add('b')); file.close()", file.path)
    assert done.returncode == 0, done.stderr
    assert os.path.exists(f"{file.path}-wal")
    file.write_sync(add("c"))
    assert file.read_sync(names) == ["a", "b", "c"]


# Migration


@pytest.mark.parametrize("schema", [TWO, THREE])
def test_a_file_of_an_earlier_version_is_migrated(tmp_path: Path, schema: Schema) -> None:
    path = made(tmp_path / "ledger.db")
    file = SqliteFile(path, schema)
    table = "items" if schema is TWO else "things"
    rows = file.read_sync(lambda connection: connection.execute(f"SELECT name, size FROM {table}").fetchall())
    assert rows == [("a", None if schema is TWO else "old")]
    file.close()
    with pytest.raises(LedgerError, match="written by a later version"):
        SqliteFile(path, ONE).read_sync(names)


BAD = {
    "a statement fails": (THREE.statements, {1: ("DELETE FROM items",), 2: ("nonsense",)}, "near"),
    "a step is missing": (THREE.statements, {1: ("DELETE FROM items",)}, "has format 2"),
    "it leads elsewhere": (THREE.statements, {1: ("DELETE FROM items",), 2: ()}, "do not become"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, case: str) -> None:
    statements, migrations, words = BAD[case]
    path = made(tmp_path / "ledger.db")
    before = path.read_bytes()
    file = SqliteFile(path, Schema(ONE.application_id, 3, statements, migrations))
    with pytest.raises(LedgerError, match=words):
        file.read_sync(names)
    file.close()
    assert path.read_bytes() == before
    old = SqliteFile(path, ONE)
    assert old.read_sync(names) == ["a"]
    old.close()


MIGRATING = f"""
THREE = Schema({THREE.application_id}, 3, {THREE.statements!r}, {dict(THREE.migrations)!r})
file = SqliteFile(sys.argv[1], THREE)
print(file.read_sync(lambda c: c.execute("SELECT name, size FROM things").fetchall()))
file.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process ends there with another status")
@pytest.mark.parametrize("place", ["during_migration@1", "during_migration@2", "before_migration_commit"])
def test_a_migration_that_is_killed_is_done_again(tmp_path: Path, place: str) -> None:
    path = made(tmp_path / "ledger.db")
    killed = run_python(MIGRATING, path, BRAIN_FAILPOINTS=f"storage.{place}=kill")
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "")
    old = SqliteFile(path, ONE)
    assert old.read_sync(names) == ["a"]
    old.close()
    assert run_python(MIGRATING, path).stdout == "[('a', 'old')]\n"


def test_a_creation_that_is_killed_is_done_again(tmp_path: Path) -> None:
    body = "file = SqliteFile(sys.argv[1], ONE); print(file.write_sync(add('a'))); file.close()"
    killed = run_python(body, tmp_path / "ledger.db", BRAIN_FAILPOINTS="storage.before_creation_commit=exit")
    assert (killed.returncode, killed.stdout) == (99, "")
    done = run_python(body, tmp_path / "ledger.db")
    assert done.stdout == "1\n", done.stderr


def test_who_has_it_open_in_an_earlier_format_stops_when_another_migrates_it(file: SqliteFile) -> None:
    assert file.write_sync(add("a")) == 1
    assert file.read_sync(names) == ["a"]
    later = SqliteFile(file.path, TWO)
    later.read_sync(names)
    for use in (file.write_sync, file.read_sync):
        with pytest.raises(LedgerError, match="written by a later version"):
            use(names)
    later.close()


def test_many_processes_begin_migrate_and_write_at_once(tmp_path: Path) -> None:
    old = made(tmp_path / "old.db")
    body = (
        MIGRATING
        + "\nfile = SqliteFile(sys.argv[2], ONE)\nfor n in range(20): file.write_sync(add(f'{os.getpid()} {n}'))"
    )
    command = [sys.executable, "-c", CHILD + body, str(old), str(tmp_path / "new.db")]
    children = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(5)]
    for child in children:
        _, errors = child.communicate(timeout=100)
        assert child.returncode == 0, errors
    new = SqliteFile(tmp_path / "new.db", ONE)
    assert len(new.read_sync(names)) == 100
    new.close()


# Network file systems

MOUNTS = rb"""22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 0:41 / /home/me/local rw shared:3 master:2 - xfs /dev/vdb rw
32 22 0:42 / /mnt/a\040b\134c rw - cifs //server/share rw
33 22 0:43 / /mnt/s3 rw - fuse.s3fs s3fs rw
34 22 0:44 / /mnt/two rw - ext4 /dev/vdc rw
35 34 0:45 / /mnt/two rw - 9p hostshare rw
36 22 0:46 / /mnt/enc rw - fuse.gocryptfs enc rw
garbage
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/ledger.db", None),
        ("/home/me/ledger.db", "nfs4"),
        ("/homework/ledger.db", None),
        ("/home", "nfs4"),
        ("/home/me/local/ledger.db", None),
        ("/home/me/locally/ledger.db", "nfs4"),
        ("/mnt/a b\\c/ledger.db", "cifs"),
        ("/mnt/s3/deep/er/ledger.db", "fuse.s3fs"),
        ("/mnt/two/ledger.db", "9p"),
        ("/mnt/enc/ledger.db", None),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="drives are asked there")
def test_a_network_file_system_is_known_by_the_deepest_mount(tmp_path: Path, path: str, kind: str | None) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(MOUNTS)
    assert filesystems.network_file_system(path, mounts=str(table)) == kind
    assert filesystems.network_file_system(path, mounts=str(tmp_path / "none")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the table of mounts is Linux's")
def test_a_network_file_system_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    (tmp_path / "share").mkdir()
    table.write_bytes(b"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / %s rw - nfs4 x rw\n" % os.fsencode(tmp_path / "share"))
    monkeypatch.setattr(
        opening, "network_file_system", lambda path: filesystems.network_file_system(path, mounts=str(table))
    )
    (tmp_path / "link").symlink_to(tmp_path / "share")
    with pytest.raises(LedgerError, match=r"network file system \(nfs4\).*name a file on a disk of this machine"):
        SqliteFile(tmp_path / "link" / "ledger.db", ONE).write_sync(names)
    assert list((tmp_path / "share").iterdir()) == []


# Who lives

LIVING = "file = SqliteFile(sys.argv[1], ONE); print(file.claim(), flush=True)\n"


def start(body: str, *arguments: object) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD + body, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def test_a_process_lives_until_it_ends_however_it_ends(file: SqliteFile) -> None:
    child, owner = start(LIVING + "sys.stdin.read()", file.path)
    alive = Path(f"{file.path}-alive")
    assert file.is_alive(owner)
    assert file.is_alive(owner), "looking changes nothing"
    assert (alive / owner).exists()
    child.kill()
    child.communicate()
    assert not file.is_alive(owner)
    assert not (alive / owner).exists(), "what the dead left is removed when it is seen"
    assert not file.is_alive(owner)


def test_many_may_look_at_once(file: SqliteFile) -> None:
    """Who looks must not be taken for who lives."""
    child, owner = start(LIVING + "sys.stdin.read()", file.path)
    child.kill()
    child.communicate()
    seen: list[bool] = []
    threads = [threading.Thread(target=lambda: seen.append(file.is_alive(owner))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [False] * 8


def test_this_process_lives_and_keeps_one_token(file: SqliteFile, tmp_path: Path) -> None:
    owner = file.owner
    assert file.is_alive(owner)
    assert not Path(f"{file.path}-alive").exists(), "nothing is made before it is claimed"
    assert file.claim() == file.claim() == owner == SqliteFile(file.path, ONE).owner
    assert os.listdir(f"{file.path}-alive") == [owner]
    assert SqliteFile(tmp_path / "other.db", ONE).owner != owner
    file.close()
    assert file.owner == owner
    done = run_python("print(SqliteFile(sys.argv[1], ONE).is_alive(sys.argv[2]))", file.path, owner)
    assert done.stdout == "True\n", done.stderr


def test_a_lock_whose_file_somebody_removed_is_made_again(file: SqliteFile) -> None:
    owner = file.claim()
    os.unlink(f"{file.path}-alive/{owner}")
    assert file.claim() == owner
    done = run_python("print(SqliteFile(sys.argv[1], ONE).is_alive(sys.argv[2]))", file.path, owner)
    assert done.stdout == "True\n", done.stderr


def test_what_the_dead_left_is_swept_and_the_living_stay(file: SqliteFile) -> None:
    dead = [start(LIVING, file.path) for _ in range(2)]
    for child, _ in dead:
        child.communicate()
    living, owner = start(LIVING + "sys.stdin.read()", file.path)
    strange = Path(f"{file.path}-alive", "readme")
    strange.touch()
    mine = file.claim()
    assert set(os.listdir(strange.parent)) == {owner, "readme", mine}
    living.communicate()


@pytest.mark.parametrize(
    "owner",
    ["", ".", "..", "../victim", "a" * 31, "A" * 32, "a" * 33, "a" * 32 + "\n", "\0" * 32, "/etc/passwd", "0" * 32],
)
def test_a_token_that_is_none_is_not_alive_and_touches_nothing(file: SqliteFile, tmp_path: Path, owner: str) -> None:
    (tmp_path / "victim").touch()
    file.claim()
    before = looks(tmp_path)
    assert not file.is_alive(owner)
    assert looks(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_in_the_place_of_a_token_is_not_followed(file: SqliteFile, tmp_path: Path) -> None:
    file.claim()
    (tmp_path / "victim").touch()
    Path(f"{file.path}-alive", "0" * 32).symlink_to(tmp_path / "victim")
    assert not file.is_alive("0" * 32)
    assert (tmp_path / "victim").exists()


def test_in_memory_only_oneself_lives() -> None:
    one, two = SqliteFile(None, ONE), SqliteFile(None, ONE)
    assert one.claim() == one.owner
    assert one.is_alive(one.owner)
    assert not one.is_alive(two.owner)


# Processes


def test_a_file_is_pickled_by_its_name_and_memory_is_not(file: SqliteFile) -> None:
    file.write_sync(add("a"))
    again = pickle.loads(pickle.dumps(file))
    assert again.read_sync(names) == ["a"]
    again.close()
    with pytest.raises(TypeError, match="name a file"):
        pickle.dumps(SqliteFile(None, ONE))


def forked(work: Callable[[], object]) -> str:
    """What ``work`` gives back in a forked child, which ends without cleaning up."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            told = repr(work())
        except BaseException as error:
            told = repr(error)
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return told


@FORK
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_begins_afresh(store: SqliteFile) -> None:
    store.write_sync(add("a"))
    store.read_sync(names)
    owner = store.claim()

    def child() -> object:
        store.write_sync(add("b"))
        return store.owner != owner, store.claim() == store.owner, store.read_sync(names)

    assert forked(child) == repr((True, True, ["b"] if store.path is None else ["a", "b"]))
    assert store.owner == owner
    store.write_sync(add("c"))
    assert store.read_sync(names) == (["a", "c"] if store.path is None else ["a", "b", "c"])


@FORK
@pytest.mark.filterwarnings("ignore:This process")
def test_what_waits_when_a_child_is_forked_is_written_once_by_the_parent(file: SqliteFile) -> None:
    file.write_sync(add("a"))
    blocked = Blocked(file)
    futures = [file.submit(add("b")), file.submit(add("c"))]
    threading.Timer(0.2, blocked.release).start()  # the fork waits for the work that is under way

    def child() -> object:
        told = [type(future.exception(60)).__name__ for future in futures]
        file.write_sync(add("d"))
        file.close()
        return told

    told = forked(child)
    assert [future.result(60) for future in futures] == [2, 3] or [future.result(60) for future in futures]
    assert told in (repr(["LedgerError", "LedgerError"]), repr(["NoneType", "NoneType"]))
    assert sorted(file.read_sync(names)) == ["a", "b", "c", "d"]


@FORK
@pytest.mark.filterwarnings("ignore:This process")
def test_a_child_of_a_fork_that_waited_too_long_refuses_the_file(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "FORK_PATIENCE", 0.01)
    blocked = Blocked(file)
    told = forked(lambda: file.write_sync(add("b")))
    blocked.release()
    assert "LedgerError" in told
    assert "fork earlier" in told
    assert file.write_sync(add("a")) == 1


@FORK
def test_a_child_does_not_keep_its_parent_alive(file: SqliteFile) -> None:
    body = LIVING + "pid = os.fork()\nif not pid: os.setsid(); sys.stdin.read(); os._exit(0)\nos._exit(0)"
    child, owner = start(body, file.path)
    child.wait(60)  # its own child lives on, and holds what it has inherited
    assert not file.is_alive(owner)
    child.communicate()


EXITS = {
    "at once": "file = SqliteFile(sys.argv[1], ONE)\nfor n in range(300): file.submit(add(str(n)))",
    "by an error": "file = SqliteFile(sys.argv[1], ONE)\nfor n in range(300): file.submit(add(str(n)))\n1 / 0",
    "from a thread": """
file = SqliteFile(sys.argv[1], ONE)
def work():
    for n in range(300): file.submit(add(str(n)))
threading.Thread(target=work).start()
""",
    "after the end": """
import atexit
file = SqliteFile(sys.argv[1], ONE)
file.write_sync(add("0"))
def late():
    for n in range(1, 300): file.submit(add(str(n)))
atexit.register(late)
""",
    "without a name": "for n in range(300): SqliteFile(sys.argv[1], ONE).submit(add(str(n)))",
    "from a loop that ended": """
file = SqliteFile(sys.argv[1], ONE)
async def main():
    for n in range(300): asyncio.create_task(file.write(add(str(n))))
    await asyncio.sleep(0)
asyncio.run(main())
""",
}
if hasattr(os, "fork"):
    EXITS["in a child of multiprocessing, by fork"] = """
import multiprocessing
file = SqliteFile(sys.argv[1], ONE)
file.write_sync(add("0"))
def work():
    for n in range(1, 300): file.submit(add(str(n)))
child = multiprocessing.get_context("fork").Process(target=work)
child.start(); child.join(60)
"""


@pytest.mark.parametrize("case", EXITS)
def test_what_was_submitted_is_written_when_the_interpreter_ends(tmp_path: Path, case: str) -> None:
    done = run_python(EXITS[case], tmp_path / "ledger.db")
    assert "ZeroDivisionError" in done.stderr if case == "by an error" else done.stderr == ""
    file = SqliteFile(tmp_path / "ledger.db", ONE)
    assert len(file.read_sync(names)) == 300
    file.close()


def test_a_spawned_child_opens_the_same_file(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        CHILD
        + """
def work(file):
    for n in range(50): file.submit(add(f"{os.getpid()} {n}"))
if __name__ == "__main__":
    import multiprocessing
    file = SqliteFile(sys.argv[1], ONE)
    children = [multiprocessing.get_context("spawn").Process(target=work, args=(file,)) for _ in range(2)]
    for child in children: child.start()
    for child in children: child.join(60)
    print(file.read_sync(lambda c: c.execute("SELECT count(*) FROM items").fetchone()))
"""
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "ledger.db")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "(100,)\n", done.stderr


# Failpoints


def test_a_failpoint_does_nothing_unless_it_is_set() -> None:
    failpoint("anything")
    with failpoints() as seen:
        failpoint("anything")
        failpoint("anything")
    assert seen.reached == {"anything": 2}
    failpoint("anything")
    assert seen.reached == {"anything": 2}


def test_the_third_time_is_the_third_time() -> None:
    with failpoints({"a@3": "raise:ValueError"}) as seen:
        failpoint("a")
        failpoint("b")
        failpoint("a")
        with pytest.raises(ValueError, match="a@3"):
            failpoint("a")
        failpoint("a")
    assert seen.reached == {"a": 4, "b": 1}


def test_what_never_happened_is_complained_about() -> None:
    with pytest.raises(AssertionError, match="never reached: a@2, b"), failpoints({"a@2": "kill", "b": "exit"}):
        failpoint("a")
    with pytest.raises(KeyError), failpoints({"a": "kill"}):
        raise KeyError  # the first trouble is the one to see


def test_actions() -> None:
    calls: list[int] = []
    with failpoints(
        {"call": lambda: calls.append(1), "sleep": "sleep:0", "ours": "raise:LedgerError", "sql": "raise:sqlite3.Error"}
    ):
        failpoint("call")
        failpoint("sleep")
        with pytest.raises(LedgerError):
            failpoint("ours")
        with pytest.raises(sqlite3.Error):
            failpoint("sql")
    assert calls == [1]


@pytest.mark.parametrize(
    "action",
    ["", "boom", "raise:", "raise:print", "raise:os.system", "raise:__import__('os')", "sleep:x", "sleep:-1", "kill:1"],
)
def test_an_action_that_is_none_is_refused(action: str) -> None:
    with pytest.raises(ConfigurationError, match="is no action"):
        Failpoints({"a": action})


@pytest.mark.parametrize("name", ["", "a@", "a@0", "a@x", "@1"])
def test_a_place_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="write a name"):
        Failpoints({name: "kill"})


def test_the_variable_is_read_once_and_refused_when_it_is_wrong() -> None:
    assert parse(" a = kill ; b@3=raise:OSError;; ") == {"a": "kill", "b@3": "raise:OSError"}
    done = run_python("failpoint('a'); print('no')", BRAIN_FAILPOINTS="a=exit")
    assert (done.returncode, done.stdout) == (99, "")
    done = run_python("print('no')", BRAIN_FAILPOINTS="a")
    assert done.returncode == 1
    assert "'a' is not name=action" in done.stderr


def test_the_words_of_a_full_disk() -> None:
    error = OSError(28, "No space left on device")
    assert "the disk is full: make room" in str(complaints.complaint("/x", error))
