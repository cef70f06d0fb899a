"""A ledger's file opened: what is refused is not touched, what is older is migrated, what was planted never runs."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brain.errors import JournalCorrupt, LedgerError
from brain.storage import Schema, SqliteFile, complaints, filesystems, opening

from .storing import CHILD, ITEMS, ONE, ROOT, THREE, TWO, add, looks, names, run_python


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    file = SqliteFile(tmp_path / "ledger.db", ONE)
    yield file
    file.close()


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


def test_the_words_of_a_full_disk() -> None:
    error = OSError(28, "No space left on device")
    assert "the disk is full: make room" in str(complaints.complaint("/x", error))
