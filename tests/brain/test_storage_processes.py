"""Which process still lives, what a forked child inherits, and what is written when an interpreter ends."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brain.storage import SqliteFile, database

from .storing import CHILD, ONE, ROOT, Blocked, add, looks, names, run_python, start

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked on Windows")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    file = SqliteFile(tmp_path / "ledger.db", ONE)
    yield file
    file.close()


LIVING = "file = SqliteFile(sys.argv[1], ONE); print(file.claim(), flush=True)\n"


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
@pytest.mark.parametrize("place", ["memory", "file"])
def test_a_forked_child_begins_afresh(tmp_path: Path, place: str) -> None:
    store = SqliteFile(None if place == "memory" else tmp_path / "ledger.db", ONE)
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
    assert [future.result(60) for future in futures] in ([2, 3], [3, 4])
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
    body = (
        LIVING
        + "reading, writing = os.pipe()\n"
        + "if not os.fork(): os.write(writing, b'x'); sys.stdin.read(); os._exit(0)\n"
        + "os.read(reading, 1); os._exit(0)"
    )
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
