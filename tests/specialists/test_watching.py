from __future__ import annotations

import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.errors import WatchError
from specialists.statistics import ShiftMartingale, histogram
from specialists.watching import MemoryStore, SqliteStore, Store, Watch, Watched

from ..benchmarks import watching as benchmark

ROOT = Path(__file__).parents[2]
INTENT = Watched("intent", "c1", alpha=0.05, delta=0.05)
HOSTILE = ["'; DROP TABLE audits; --", "a\0b", "\ud800", "ü\n\u202e", "%s %d {}", "", "x" * 100_000, '"', "NULL"]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "watch.db")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "watch.db"


def errors_until_alarm(watch: Watch, watched: Watched = INTENT) -> int:
    """How many wrong answers in a row it takes."""
    for count in range(100):
        if watch.revoked(watched):
            return count
        watch.audited(watched, f"wrong-{count}", True, by="verifier")
    raise AssertionError("a hundred wrong answers raised no alarm")


# Which calls are audited.


def test_who_is_audited_is_told_by_the_id_alone() -> None:
    one, other = Watch(share=0.2), Watch(share=0.2)
    drawn = [one.draws(f"call-{number}") for number in range(5_000)]
    assert drawn == [other.draws(f"call-{number}") for number in range(5_000)]
    assert 0.18 < sum(drawn) / 5_000 < 0.22
    more = [Watch(share=0.4).draws(f"call-{number}") for number in range(5_000)]
    assert all(later for first, later in zip(drawn, more, strict=True) if first)


@given(st.text(st.characters(exclude_categories=())))
def test_all_or_none_are_audited(call_id: str) -> None:
    assert Watch(share=1).draws(call_id)
    assert not Watch(share=0).draws(call_id)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"share": -0.1}, "share is the part"),
        ({"share": 1.1}, "share is the part"),
        ({"share": float("nan")}, "share is the part"),
        ({"auditor_error": 1}, "auditor_error is a share"),
        ({"auditor_error": -0.1}, "auditor_error is a share"),
        ({"drift_level": 0}, "drift_level lies between"),
    ],
)
def test_shares_that_cannot_be(arguments: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Watch(**arguments)


def test_what_is_watched_must_be_possible() -> None:
    for change in ({"alpha": 0}, {"alpha": 1}, {"delta": 0}, {"edges": (0.5,), "counts": (1,)}, {"edges": (0.5,)}):
        with pytest.raises(ValueError, match=r"lies between|counts"):
            replace(INTENT, **change)  # type: ignore[arg-type]


def test_no_number_of_errors_would_be_too_many() -> None:
    with pytest.raises(ValueError, match="no number of errors"):
        Watch(auditor_error=0.95).audited(INTENT, "call", True, by="model")


# Audits and the alarm.


def test_too_many_errors_revoke_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(store)
    assert watch.revoked(INTENT) is None
    count = errors_until_alarm(watch)
    assert 2 <= count <= 5
    reason = watch.revoked(INTENT) or ""
    assert f"{count} of {count} audited answers were wrong" in reason
    assert "brain specialists calibrate intent CASES.jsonl" in reason
    for number in range(5):  # raised once, not again
        watch.audited(INTENT, f"more-{number}", True, by="verifier")
    for number in range(500):  # it stays revoked, whatever follows
        watch.audited(INTENT, f"right-{number}", False, by="verifier")
    assert watch.revoked(INTENT) == reason
    (status,) = watch.status()
    assert status.alarm is not None
    assert (status.alarm.audits, status.alarm.errors) == (count, count)
    assert (status.audits, status.errors) == (505 + count, 5 + count)
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.name == "specialists"
    assert record.getMessage() == f"the certificate of intent is {reason}"


def test_another_certificate_is_watched_anew(store: Store) -> None:
    watch = Watch(store)
    errors_until_alarm(watch)
    assert watch.revoked(replace(INTENT, certificate="c2")) is None
    assert watch.revoked(replace(INTENT, name="other")) is None


def test_an_audit_counts_once(store: Store) -> None:
    watch = Watch(store)
    assert watch.audited(INTENT, "call", False, by="verifier")
    assert not watch.audited(INTENT, "call", True, by="model")
    assert watch.audited(replace(INTENT, certificate="c2"), "call", True, by="model")
    assert [(each.certificate, each.audits, each.errors) for each in watch.status()] == [("c1", 1, 0), ("c2", 1, 1)]


def test_right_answers_raise_no_alarm(store: Store) -> None:
    watch = Watch(store)
    chance = random.Random(1)
    for number in range(300):
        watch.audited(INTENT, str(number), chance.random() < 0.02, by="verifier")
    (status,) = watch.status()
    assert status.alarm is None
    assert status.e_value < 20


def test_the_bet_is_that_of_the_statistics() -> None:
    watch, bet = Watch(auditor_error=0.02), ShiftMartingale(0.05 + 0.02)
    chance = random.Random(2)
    for number in range(50):
        wrong = chance.random() < 0.1
        watch.audited(INTENT, str(number), wrong, by="model")
        bet.update(wrong)
        assert watch.status()[0].e_value == bet.value


def test_an_auditor_who_errs_needs_more_errors() -> None:
    assert errors_until_alarm(Watch(auditor_error=0.3)) > errors_until_alarm(Watch())


def test_another_auditor_error_tests_all_audits_again(store: Store) -> None:
    for number in range(3):
        Watch(store, auditor_error=0.4).audited(INTENT, str(number), True, by="model")
    strict = Watch(store)
    assert strict.revoked(INTENT) is None
    strict.audited(INTENT, "3", True, by="person")
    (status,) = strict.status()
    bet = ShiftMartingale(0.05)
    assert [bet.update(True) for _ in range(4)][-1] == status.e_value
    assert status.alarm is not None


def test_a_verdict_is_no_string() -> None:
    with pytest.raises(TypeError, match="not 'false'"):
        Watch().audited(INTENT, "call", "false", by="person")  # type: ignore[arg-type]


# Labels handed in later.


def test_labels_come_in_any_order(store: Store) -> None:
    watch = Watch(store)
    for number in range(4):
        assert watch.pending(INTENT, f"call-{number}", json.dumps({"answer": number}))
    assert watch.pending(INTENT, "call-0", '"another"')  # as it was
    assert [(each.call_id, each.value_json) for each in watch.awaiting(INTENT)] == [
        (f"call-{number}", json.dumps({"answer": number})) for number in range(4)
    ]
    assert watch.label("call-2", True)
    assert watch.label("call-0", False, by="Ada")
    assert [each.call_id for each in watch.awaiting(INTENT)] == ["call-1", "call-3"]
    (status,) = watch.status()
    assert (status.alpha, status.audits, status.errors, status.awaiting) == (0.05, 2, 1, 2)
    assert not watch.label("call-2", True)
    with pytest.raises(WatchError, match="audited as right already, by Ada"):
        watch.label("call-0", True)
    assert not watch.pending(INTENT, "call-2", "1")
    assert watch.status() == [status]


def test_a_label_for_an_unknown_call(store: Store) -> None:
    watch = Watch(store)
    watch.pending(INTENT, "known", "1")
    with pytest.raises(WatchError, match="no answer of a call 'unknown' waits"):
        watch.label("unknown", True)
    with pytest.raises(WatchError, match="no answer of a call 'known' waits"):
        watch.label("known", True, watched=replace(INTENT, certificate="c2"))
    assert len(watch.awaiting(INTENT)) == 1


def test_a_label_for_two_certificates_says_which(store: Store) -> None:
    watch, other = Watch(store), replace(INTENT, certificate="c2")
    watch.pending(INTENT, "call", "1")
    watch.pending(other, "call", "1")
    with pytest.raises(WatchError, match="say which is meant"):
        watch.label("call", True)
    assert watch.label("call", True, watched=other)
    assert watch.label("call", False)
    assert [each.errors for each in watch.status()] == [0, 1]


def test_labels_raise_the_alarm(store: Store) -> None:
    watch = Watch(store)
    for number in range(10):
        watch.pending(INTENT, str(number), "1")
    for number in range(10):
        watch.label(str(number), True)
    assert watch.revoked(INTENT)


def test_what_waits_and_is_audited_waits_no_longer(store: Store) -> None:
    watch = Watch(store)
    watch.pending(INTENT, "call", "1")
    watch.audited(INTENT, "call", False, by="model")
    assert watch.awaiting(INTENT) == []


# Drift.


def stream(chance: random.Random, calls: int, shift: float = 0.0) -> Iterator[float]:
    for _ in range(calls):
        yield max(0.0, chance.betavariate(8, 2) - shift)


def test_a_drift_warns_once_and_its_absence_does_not(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(3)
    edges, counts = histogram(stream(chance, 500))
    watched = replace(INTENT, edges=edges, counts=counts)
    watch = Watch(store)
    for number, confidence in enumerate(stream(chance, 1_000)):
        watch.seen(watched, f"before-{number}", confidence)
    (status,) = watch.status()
    assert (status.calls, status.drift_warned, caplog.records) == (1_000, None, [])
    for number, confidence in enumerate(stream(chance, 400, shift=0.15)):
        watch.seen(watched, f"after-{number}", confidence)
    (status,) = watch.status()
    assert status.drift_warned is not None
    assert status.drift_e_value is not None
    assert status.drift_e_value >= 100
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("specialists", logging.WARNING)
    assert "brain specialists calibrate intent CASES.jsonl" in record.getMessage()
    assert watch.revoked(watched) is None  # it warns, no more


def test_calls_without_a_histogram_are_counted(store: Store) -> None:
    with Watch(store) as watch:
        watch.seen(INTENT, "call", None)
    (status,) = watch.status()
    assert (status.calls, status.audits, status.e_value, status.drift_e_value) == (1, 0, 1.0, None)


def test_status_is_json(store: Store) -> None:
    watch = Watch(store)
    watched = replace(INTENT, edges=(0.5,), counts=(3, 4, 0))
    watch.seen(watched, "call", 0.4)
    errors_until_alarm(watch, watched)
    (told,) = [each.to_json() for each in watch.status()]
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["name"] == "intent"
    assert set(told["alarm"]) == {"at", "audits", "errors"}
    assert told["drift_e_value"] == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("text", HOSTILE)
def test_strange_strings_are_data(store: Store, text: str) -> None:
    watch = Watch(store, share=1)
    watched = Watched(text, text, 0.05, 0.05, (0.5,), (3, 4, 0))
    watch.draws(text)
    watch.seen(watched, text, 0.9)
    assert watch.pending(watched, text, text)
    assert [each[:2] for each in watch.awaiting(watched)] == [(text, text)]
    assert watch.label(text, True, by=text)
    assert not watch.audited(watched, text, True, by=text)
    for number in range(10):
        watch.audited(watched, f"{text}{number}", True, by=text)
    assert watch.revoked(watched)
    (status,) = watch.status()
    assert (status.name, status.certificate, status.audits, status.awaiting) == (text, text, 11, 0)


# One file, many users.


def test_everything_is_there_after_reopening(path: Path) -> None:
    watch = Watch(SqliteStore(path))
    watch.seen(INTENT, "call", 0.9)
    watch.pending(INTENT, "waits", "1")
    errors_until_alarm(watch)
    status = watch.status()
    again = Watch(SqliteStore(path))
    assert again.status() == status
    assert again.revoked(INTENT) == watch.revoked(INTENT) is not None
    assert [each.call_id for each in again.awaiting(INTENT)] == ["waits"]


def test_anothers_alarm_is_seen_within_a_second(path: Path) -> None:
    one, other = Watch(SqliteStore(path)), Watch(SqliteStore(path))
    assert other.revoked(INTENT) is None
    errors_until_alarm(Watch(one.store))
    seen = time.monotonic()
    while other.revoked(INTENT) is None:
        assert time.monotonic() - seen < 1
        time.sleep(0.01)


def test_asking_before_every_call_is_cheap(path: Path) -> None:
    watch = Watch(SqliteStore(path))
    watch.audited(INTENT, "call", False, by="verifier")
    start = time.process_time()
    for _ in range(10_000):
        watch.revoked(INTENT)
    assert (time.process_time() - start) / 10_000 < 50e-6


HAMMER = """
import sys, threading
from specialists.watching import SqliteStore, Watch, Watched
watch = Watch(SqliteStore(sys.argv[1]))
watched = Watched("intent", "c1", 0.05, 0.05, (0.5,), (30, 40, 0))
def work(thread):
    for number in range(int(sys.argv[3])):
        call = f"{sys.argv[2]}-{thread}-{number}"
        watch.seen(watched, call, 0.1 * (number % 10))
        watch.close()
        watch.audited(watched, call, number % 10 == 0, by="verifier")
        watch.audited(watched, f"shared-{thread}-{number}", False, by="verifier")
        print(call, flush=True)
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=work, args=(thread,)) for thread in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def hammer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    """A process that stands ready and begins when it is sent a line."""
    command = [sys.executable, "-c", HAMMER, str(path), name, str(count)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def rows(path: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT call_id, wrong FROM audits ORDER BY number").fetchall()


def test_two_processes_lose_no_audit(path: Path) -> None:
    processes = [hammer(path, name, 100) for name in ("one", "two")]
    for process in processes:
        begin(process)
    for process in processes:
        _, told = process.communicate(timeout=60)
        assert (process.returncode, "Traceback" in told) == (0, False), told
    found = rows(path)
    assert len(found) == len(set(found)) == 2 * 2 * 100 + 2 * 100
    (status,) = Watch(SqliteStore(path)).status()
    assert (status.audits, status.errors, status.calls) == (600, 40, 400)
    bet = ShiftMartingale(0.05)
    for _, wrong in found:  # in the order that the file holds, nothing was skipped or counted twice
        bet.update(bool(wrong))
    assert bet.value == status.e_value


def test_what_was_counted_outlives_a_kill(path: Path) -> None:
    process = hammer(path, "one", 10_000)
    begin(process)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    found = rows(path)
    assert {call for call, _ in found} >= set(told)
    (status,) = Watch(SqliteStore(path)).status()
    assert (status.audits, status.errors) == (len(found), sum(wrong for _, wrong in found))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_store_outlives_a_fork(store: Store) -> None:
    watch = Watch(store)
    watch.audited(INTENT, "before", False, by="verifier")
    watch.seen(INTENT, "the parent's", 0.5)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:  # somebody is in the middle of a transaction most of the time

        def busy() -> int:
            count = 0
            while not stop.is_set():
                watch.audited(INTENT, f"parent-{count}", False, by="verifier")
                count += 1
            return count

        counting = pool.submit(busy)
        children = []
        for child in range(3):
            time.sleep(0.02)
            pid = os.fork()
            if pid == 0:
                try:
                    signal.alarm(20)  # rather than wait for a lock that nobody holds
                    assert getattr(store, "_connection", None) is None
                    for number in range(10):
                        watch.audited(INTENT, f"child-{child}-{number}", False, by="verifier")
                    watch.close()
                    os._exit(0)
                except BaseException:
                    os._exit(1)
            children.append(pid)
        ends = [os.waitpid(pid, 0)[1] for pid in children]
        stop.set()
        done = counting.result()
    assert ends == [0, 0, 0]
    (status,) = watch.status()
    theirs = 30 if isinstance(store, SqliteStore) else 0
    assert (status.audits, status.calls) == (1 + done + theirs, 1)


def test_threads_share_a_watch(store: Store) -> None:
    watch = Watch(store)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: watch.seen(INTENT, str(number), 0.5), range(300)))
        list(pool.map(lambda number: watch.audited(INTENT, str(number), False, by="verifier"), range(100)))
    (status,) = watch.status()
    assert (status.calls, status.audits) == (300, 100)


def test_confidences_are_written_when_a_process_ends(path: Path) -> None:
    code = (
        "import sys; from specialists.watching import *; watch = Watch(SqliteStore(sys.argv[1]));"
        " watch.seen(Watched('intent', 'c1', 0.05, 0.05), 'call', 0.5)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, timeout=30)
    assert Watch(SqliteStore(path)).status()[0].calls == 1


# Files that fail.


def uses(watch: Watch) -> list[Any]:
    return [
        lambda: watch.revoked(INTENT),
        lambda: watch.audited(INTENT, "call", True, by="verifier"),
        lambda: watch.pending(INTENT, "call", "1"),
        lambda: watch.label("call", True),
        watch.status,
    ]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for use in uses(Watch(SqliteStore(tmp_path / "no" / "watch.db"))):
        with pytest.raises(WatchError, match="a folder that exists and may be written"):
            use()


@pytest.mark.parametrize("content", [b"this is no database, and longer than a header of one is" * 9, os.urandom(4_096)])
def test_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for use in uses(Watch(SqliteStore(path))):
        with pytest.raises(WatchError, match="move the file away"):
            use()
    assert path.read_bytes() == content


def test_a_database_of_somebody_else(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE invoices (number)")
    before = path.read_bytes()
    for use in uses(Watch(SqliteStore(path))):
        with pytest.raises(WatchError, match="something else than a watch"):
            use()
    assert path.read_bytes() == before


@pytest.mark.parametrize("state", ["{", "[]", "{}", '{"alpha": "x"}'])
def test_a_state_that_cannot_be_read(path: Path, state: str) -> None:
    watch = Watch(SqliteStore(path))
    watch.audited(INTENT, "call", False, by="verifier")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE certificates SET state = ?", [state])
    with pytest.raises(WatchError, match="copy"):
        watch.status()
    with pytest.raises(WatchError, match="copy"):
        watch.audited(INTENT, "another", False, by="verifier")


def test_a_full_disk_loses_nothing(path: Path) -> None:
    store = SqliteStore(path)
    watch = Watch(store)
    watch.pending(INTENT, "kept", "1")
    assert store._connection is not None
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(WatchError, match="make room on the disk"):
        watch.pending(INTENT, "lost", "x" * 100_000)
    assert [each.call_id for each in watch.awaiting(INTENT)] == ["kept"]
    assert watch.pending(INTENT, "later", "x" * 100_000)


def test_confidences_wait_while_a_store_fails(tmp_path: Path) -> None:
    watch = Watch(SqliteStore(tmp_path / "no" / "watch.db"))
    failed = 0
    for number in range(200):
        try:
            watch.seen(INTENT, str(number), 0.5)
        except WatchError:
            failed += 1
    assert 1 <= failed <= 6
    (tmp_path / "no").mkdir()
    assert watch.status()[0].calls == 200


def test_a_file_that_vanishes_is_told_of(path: Path) -> None:
    watch = Watch(SqliteStore(path))
    errors_until_alarm(watch)
    path.unlink()
    with pytest.raises(WatchError, match="removed or replaced"):
        watch.audited(INTENT, "call", False, by="verifier")
    assert watch.revoked(INTENT)  # whoever takes the file away does not take the alarm


def test_another_holds_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specialists.watching.sqlite_store.PATIENCE", 0.1)
    watch = Watch(SqliteStore(path))
    watch.audited(INTENT, "first", False, by="verifier")
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert watch.revoked(INTENT) is None  # reading goes on
        with pytest.raises(WatchError, match="another process has kept it locked"):
            watch.audited(INTENT, "second", False, by="verifier")
        other.execute("ROLLBACK")
    assert watch.audited(INTENT, "second", False, by="verifier")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_written(path: Path) -> None:
    Watch(SqliteStore(path)).audited(INTENT, "call", False, by="verifier")
    path.chmod(0o444)
    with pytest.raises(WatchError, match="may be written"):
        Watch(SqliteStore(path)).audited(INTENT, "another", False, by="verifier")


# The benchmark.


def test_the_benchmark_runs_the_recursion_of_the_class() -> None:
    """Step by step, for many streams at once."""
    wrong = np.random.default_rng(4).random((300, 7)) < np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0])
    bets = [ShiftMartingale(0.01) for _ in range(7)]
    for row, values in zip(wrong, benchmark.values(iter(wrong), 0.01), strict=True):
        assert values == pytest.approx([bet.update(bool(each)) for bet, each in zip(bets, row, strict=True)], rel=1e-9)


def test_the_benchmark_tells_of_a_broken_promise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["watching", "--quick", "--json"])
    assert benchmark.main() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["benchmark"] == "watching"
    assert len([row for row in told["rows"] if row["target"] is not None]) == 7
    assert all(row["met"] is not False for row in told["rows"])
    drawn = benchmark.drawn  # three times the errors that the rows speak of
    monkeypatch.setattr(benchmark, "drawn", lambda n, m, rate, chance: drawn(n, m, lambda t: 3 * rate(t), chance))
    assert benchmark.main() == 1
