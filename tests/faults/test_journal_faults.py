"""Faults of the journal: processes that die at the worst moment, rows that others wrote, and two who want one run.

The numbers are those of the list of faults that the project keeps.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brain import Brain, Ledger, OpenAIModel, Price, RunContext, Tool, tool
from brain.errors import (
    BrainError,
    JournalCorrupt,
    RunBusy,
    RunTaken,
    RunUncertain,
    SchemaChanged,
)
from brain.storage.changes import Begin
from brain.storage.sqlite_store import SqliteStore
from brain.testing import FakeEndpoint, ScriptedModel, call, failpoints
from tests.soak import scaled

ROOT = Path(__file__).parents[2]
CANARY = "sk-canary-5e0b1c7a9d"
PRICE = Price(input=1, output=2)

CHILD = """
import sys
from tests.faults.test_journal_faults import brain_of
brain = brain_of(*sys.argv[1:4])
print(brain.run_sync("go", run_id="r").output)
"""


def brain_of(folder: str, url: str, effect: Any, **more: Any) -> Brain[str]:
    """A brain whose tool leaves a line in a file for each effect it has."""

    @tool(effect=effect)
    def act(ctx: RunContext[Any], number: int) -> int:
        """Act."""
        with open(os.path.join(folder, "effects"), "a") as file:
            file.write(f"{ctx.idempotency_key}\n")
        return number

    model = OpenAIModel("fake-model", base_url=url, api_key=CANARY, price=PRICE)
    return Brain(model, tools=[act], ledger=os.path.join(folder, "bill.db"), **more)


def answers(body: dict[str, Any]) -> Any:
    """Acts once, then is done."""
    return "done" if body["messages"][-1]["role"] == "tool" else call("act", number=7)


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(answers) as endpoint:
        yield endpoint


def child(folder: Path, endpoint: FakeEndpoint, effect: str, at: str) -> None:
    """The run in a process of its own, which dies at the failpoint ``at``."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), endpoint.base_url, effect],
        cwd=ROOT,
        env=os.environ | {"BRAIN_FAILPOINTS": f"{at}=kill"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)


def effects(folder: Path) -> list[str]:
    path = folder / "effects"
    return path.read_text().split() if path.exists() else []


def keys(endpoint: FakeEndpoint) -> list[str]:
    return [each.headers["idempotency-key"] for each in endpoint.requests]


async def resume(folder: Path, endpoint: FakeEndpoint, effect: str, **more: Any) -> Any:
    async with brain_of(str(folder), endpoint.base_url, effect) as brain:
        return await brain.run(run_id="r", **more)


def assert_bill_is_the_meter(folder: Path, endpoint: FakeEndpoint) -> None:
    """Every request has a row, and what is not known of those that were cut off lies within its bounds."""
    ledger = Ledger(folder / "bill.db")
    rows = ledger.rows(kind="model")
    price = sum(row.input + 2 * row.output for row in endpoint.meter)
    total = ledger.total(kind="model")
    assert len(rows) >= len(endpoint.requests)
    assert total.high is not None
    assert total.low * 1_000_000 <= price <= total.high * 1_000_000
    if all(row.outcome is not None for row in rows):
        assert total.low * 1_000_000 == price == total.high * 1_000_000
    ledger.close()


def assert_no_key_in(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


EFFECTS = ("pure", "idempotent", "once")


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("step", [1, 2])
async def test_1_killed_before_the_intent_is_written(
    tmp_path: Path, endpoint: FakeEndpoint, effect: str, step: int
) -> None:
    await asyncio.to_thread(child, tmp_path, endpoint, effect, f"journal.before_intent@{step}")
    assert (len(endpoint.requests), effects(tmp_path)) == (step - 1, [])
    if step == 1:  # the run itself was begun before
        assert Ledger(tmp_path / "bill.db").steps("r") == []
    result = await resume(tmp_path, endpoint, effect)
    assert result.output == "done"
    assert len(effects(tmp_path)) == 1
    assert len(set(keys(endpoint))) == 2
    assert_bill_is_the_meter(tmp_path, endpoint)
    assert_no_key_in(tmp_path)


@pytest.mark.parametrize("effect", EFFECTS)
async def test_2_killed_after_the_intent_and_before_the_effect(
    tmp_path: Path, endpoint: FakeEndpoint, effect: str
) -> None:
    await asyncio.to_thread(child, tmp_path, endpoint, effect, "journal.after_intent@2")
    assert effects(tmp_path) == []
    if effect == "once":
        with pytest.raises(RunUncertain) as caught:
            await resume(tmp_path, endpoint, effect)
        assert effects(tmp_path) == []
        (pending,) = caught.value.pending
        result = await resume(tmp_path, endpoint, effect, approvals={pending.id: True})
    else:
        result = await resume(tmp_path, endpoint, effect)
    assert result.output == "done"
    assert len(effects(tmp_path)) == 1
    assert len(endpoint.requests) == 2
    assert_bill_is_the_meter(tmp_path, endpoint)


async def test_2_a_turn_is_asked_again_under_the_same_key(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    await asyncio.to_thread(child, tmp_path, endpoint, "once", "journal.after_effect@1")
    result = await resume(tmp_path, endpoint, "once")
    first, again, second = keys(endpoint)
    assert first == again != second
    assert result.output == "done"
    assert_bill_is_the_meter(tmp_path, endpoint)


@pytest.mark.parametrize("effect", EFFECTS)
async def test_3_killed_after_the_effect_and_before_the_commit(
    tmp_path: Path, endpoint: FakeEndpoint, effect: str
) -> None:
    await asyncio.to_thread(child, tmp_path, endpoint, effect, "journal.after_effect@2")
    (key,) = effects(tmp_path)
    if effect == "once":
        for _ in range(2):  # asking does not decide
            with pytest.raises(RunUncertain) as caught:
                await resume(tmp_path, endpoint, effect)
        (pending,) = caught.value.pending
        result = await resume(tmp_path, endpoint, effect, approvals={pending.id: False})
        assert effects(tmp_path) == [key]
        assert "may or may not" in result.messages[-2]["content"]
    else:
        result = await resume(tmp_path, endpoint, effect)
        assert effects(tmp_path) == [key, key]
    assert result.output == "done"
    assert len({*keys(endpoint), key}) == 3
    assert_bill_is_the_meter(tmp_path, endpoint)


async def test_3_what_was_said_of_one_crash_is_not_said_of_the_next(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    await asyncio.to_thread(child, tmp_path, endpoint, "once", "journal.after_effect@2")
    with pytest.raises(RunUncertain) as caught:
        await resume(tmp_path, endpoint, "once")
    (pending,) = caught.value.pending
    decided = {pending.id: True}
    with pytest.raises(OSError, match="failpoint"), failpoints({"journal.after_effect@1": "raise:OSError"}):
        await resume(tmp_path, endpoint, "once", approvals=decided)
    assert len(effects(tmp_path)) == 2
    with pytest.raises(RunUncertain) as caught:
        await resume(tmp_path, endpoint, "once", approvals=decided)
    assert len(effects(tmp_path)) == 2
    assert caught.value.pending[0].id not in decided


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("step", [1, 2, 3])
async def test_4_killed_after_the_commit(tmp_path: Path, endpoint: FakeEndpoint, effect: str, step: int) -> None:
    await asyncio.to_thread(child, tmp_path, endpoint, effect, f"journal.after_commit@{step}")
    asked, acted = len(endpoint.requests), len(effects(tmp_path))
    assert (asked, acted) == [(1, 0), (1, 1), (2, 1)][step - 1]
    try:
        result = await resume(tmp_path, endpoint, effect)
    except RunUncertain as error:  # the call's intent went in the same breath as the turn's result
        assert (step, effect) == (1, "once")
        result = await resume(tmp_path, endpoint, effect, approvals={error.pending[0].id: True})
    assert result.output == "done"
    assert (len(endpoint.requests), len(effects(tmp_path))) == (2, 1)
    again = await resume(tmp_path, endpoint, effect)
    assert (len(endpoint.requests), len(effects(tmp_path))) == (2, 1)
    assert again.messages == result.messages
    assert_bill_is_the_meter(tmp_path, endpoint)


def double(number: int) -> int:
    """Double a number."""
    MADE.append(number)
    return 2 * number


MADE: list[int] = []
PAIR = [call("double", number=1), call("double", number=2)]


def doubling(folder: Path, steps: Any, **more: Any) -> Brain[str]:
    tools = more.pop("tools", None) or [Tool(double, effect="idempotent")]
    return Brain(ScriptedModel(steps), tools=tools, ledger=folder / "bill.db", **more)


def half_done(folder: Path, status: str = "failed") -> Path:
    """A run that ended after a turn and its two calls; or, with ``done``, whole."""
    first = doubling(folder, [PAIR, "done" if status == "done" else OSError("cut off")])
    try:
        first.run_sync("go", run_id="r", history=[{"role": "user", "content": "before"}])
    except OSError:
        assert status == "failed"
    first.close()
    assert sorted(MADE) == [1, 2]
    MADE.clear()
    return folder / "bill.db"


def edit(path: Path, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement, values).rowcount >= 1
    connection.close()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of a JSON value."""
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


GONE = object()
STRANGE = (GONE, None, -1, 0.5, "x", True, [], {}, [{}], {"__reduce__": "os.system"}, "\x80\x04cos\nsystem\n", 10**30)


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    copied = json.loads(json.dumps(value))
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    if new is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return copied


JSON_FIELDS = [
    ("runs", "request", "id = 'r'", "failed"),
    ("runs", "result", "id = 'r'", "done"),
    ("steps", "result", "step = 'turn 0'", "failed"),
    ("steps", "result", "step = 'turn 0, call 1'", "failed"),
]


@pytest.mark.parametrize(("table", "column", "where", "status"), JSON_FIELDS)
async def test_7_json_that_was_edited_is_refused_or_harmless(
    tmp_path: Path, table: str, column: str, where: str, status: str
) -> None:
    path = await asyncio.to_thread(half_done, tmp_path, status)
    connection = sqlite3.connect(path)
    (text,) = connection.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()
    connection.close()
    whole = json.loads(text)
    refused = 0
    chance = random.Random(f"{table}{column}{where}")
    cases = [(place, new) for place in places(whole) for new in STRANGE]
    for place, new in chance.sample(cases, min(len(cases), scaled(3_000))):
        edit(path, f"UPDATE {table} SET {column} = ? WHERE {where}", json.dumps(changed(whole, place, new)))
        edit(path, "UPDATE runs SET status = ?, owner = NULL", status)
        edit(path, "UPDATE runs SET fence = 1")
        brain = doubling(tmp_path, [OSError("the model is asked")])
        try:
            result = await brain.run(run_id="r")
            assert status == "done", (place, new)
            assert isinstance(result.output, str)
        except OSError:
            assert status == "failed", (place, new)
        except BrainError:  # also for a budget that is none
            refused += 1
        finally:
            await brain.aclose()
        assert MADE == [], (place, new)
        with sqlite3.connect(path) as cleaning:
            cleaning.execute("DELETE FROM steps WHERE step NOT LIKE 'turn 0%' AND result IS NULL")
    assert refused > 20


RAW = [
    b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    pickle.dumps({"response": 1}),
    "not JSON",
    "NaN",
    '{"a": NaN}',
    '{"a": 1, "a": 2}',
    "[" * 100_000,
    '{"a":' * 5_000 + "1" + "}" * 5_000,
    "__import__('os').system('true')",
    "",
    "[]",
    "3",
    7,
    1.5,
]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("runs", "request"),
        ("runs", "salt"),
        ("runs", "status"),
        ("runs", "fence"),
        ("steps", "result"),
        ("steps", "key"),
        ("steps", "step"),
        ("steps", "name"),
        ("steps", "effect"),
        ("steps", "arguments"),
        ("steps", "times"),
    ],
)
async def test_7_what_is_no_such_field_is_refused(tmp_path: Path, table: str, column: str) -> None:
    path = await asyncio.to_thread(half_done, tmp_path)
    which = "WHERE step = 'turn 0, call 1'" if table == "steps" else ""
    before = sqlite3.connect(path).execute(f"SELECT {column} FROM {table} {which}").fetchone()[0]
    for raw in RAW:
        if column in ("fence", "times") and raw in (7, "3"):  # whole numbers there
            continue
        edit(path, f"UPDATE {table} SET {column} = ? {which}", raw)
        brain = doubling(tmp_path, ["never said"])
        with pytest.raises((JournalCorrupt, SchemaChanged)) as caught:
            await brain.run(run_id="r")
        assert caught.value.result is not None
        await brain.aclose()
        assert MADE == []
        back = "WHERE step NOT LIKE 'turn 0' AND step IS NOT 'turn 0, call 0'" if table == "steps" else ""
        edit(path, f"UPDATE {table} SET {column} = ? {back}", before)
    brain = doubling(tmp_path, ["said"])
    assert (await brain.run(run_id="r")).output == "said"
    await brain.aclose()


@pytest.mark.parametrize("gone", ["turn 0", "turn 0, call 0"])
async def test_7_a_step_that_was_taken_out_is_missed(tmp_path: Path, gone: str) -> None:
    path = await asyncio.to_thread(half_done, tmp_path, "done")
    edit(path, "UPDATE runs SET status = 'failed', result = NULL")
    edit(path, "DELETE FROM steps WHERE step = ?", gone)
    brain = doubling(tmp_path, [])
    with pytest.raises((JournalCorrupt, SchemaChanged)):
        await brain.run(run_id="r")
    await brain.aclose()
    assert MADE == []


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE runs; --",
        '"',
        "a\x00b",
        "日本語",
        "%s{0}?:x",
        pickle.dumps([1]).decode("latin-1"),
        "x" * 10_000_000,
    ],
)
async def test_8_hostile_text_is_data(tmp_path: Path, text: str) -> None:
    brain = doubling(tmp_path, [PAIR, OSError("cut off"), text])
    with pytest.raises(OSError, match="cut off"):
        await brain.run(text, run_id=text, tenant=text, session=text, group=text)
    result = await brain.run(run_id=text, tenant=text)
    assert result.output == text
    assert sorted(MADE) == [1, 2]
    MADE.clear()
    ledger = brain.ledger
    assert {row.run for row in ledger.rows(run=text, session=text, tenant=text)} == {text}
    assert ledger.run(text).request["prompt"] == text
    assert len(ledger.rows(tenant=text)) == len(ledger.rows())
    assert ledger.rows(tenant=f"{text}'") == []
    for key in ("1=1 --", "tenant = '' OR 1", "details"):
        if key != "details":
            with pytest.raises(TypeError, match="no column"):
                ledger.rows(**{key: text})
    await brain.aclose()


async def test_8_another_tenants_run_is_refused_and_the_file_untouched(tmp_path: Path) -> None:
    path = await asyncio.to_thread(half_done, tmp_path)
    before = path.read_bytes()
    for tenant in ("b", "", "R"):
        brain = doubling(tmp_path, [])
        with pytest.raises(RunTaken):
            await brain.run("go", run_id="r", tenant=tenant)
        await brain.aclose()
    assert path.read_bytes() == before


RACER = """
import sys
from brain.errors import RunBusy
from tests.faults.test_journal_faults import brain_of
brain = brain_of(*sys.argv[1:4])
for line in sys.stdin:
    try:
        print(brain.run_sync("go", run_id=line.strip()).output, flush=True)
    except RunBusy:
        print("busy", flush=True)
"""


def test_9_of_eight_processes_one_has_the_run(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), endpoint.base_url, "once"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    rounds = scaled(100)
    try:
        for number in range(rounds):
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write(f"run {number}\n")
                racer.stdin.flush()
            said = Counter(racer.stdout.readline().strip() for racer in racers if racer.stdout)
            assert said["done"] >= 1  # who comes after it is done gets its result
            assert said["done"] + said["busy"] == 8
    finally:
        for racer in racers:
            racer.communicate(timeout=60)
    assert len(effects(tmp_path)) == len(set(effects(tmp_path))) == rounds
    assert len(endpoint.requests) == 2 * rounds
    assert_bill_is_the_meter(tmp_path, endpoint)


async def test_9_the_loser_writes_nothing_more_but_its_bill(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    brain = brain_of(str(tmp_path), endpoint.base_url, "pure")
    thief = SqliteStore(tmp_path / "bill.db")

    def steal() -> None:
        thief.apply([Begin("r", None, {}, owner=thief.claim(), force=True)]).result()

    with failpoints({"journal.after_effect@2": steal}), pytest.raises(RunBusy) as caught:
        await brain.run("go", run_id="r")
    assert caught.value.result is not None
    assert [step.result is None for step in thief.steps("r")] == [False, True]
    found = thief.run("r")
    assert found is not None
    assert found.status == "running"
    assert len(endpoint.requests) == 1
    thief.close()
    await brain.aclose()
    assert_bill_is_the_meter(tmp_path, endpoint)


async def test_9_one_process_has_a_run_once_whichever_brain_is_asked(tmp_path: Path) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    @tool(effect="idempotent")
    async def wait() -> int:
        """Wait."""
        entered.set()
        await go.wait()
        return 1

    brains = [Brain(ScriptedModel([call("wait"), "done"]), tools=[wait], ledger=tmp_path / "bill.db") for _ in "ab"]
    task = asyncio.create_task(brains[0].run("go", run_id="r"))
    await entered.wait()
    for brain in brains:
        with pytest.raises(RunBusy) as caught:
            await brain.run("go", run_id="r")
        assert caught.value.result is not None
    go.set()
    assert (await task).output == "done"
    assert (await brains[1].run(run_id="r")).output == "done"
    for brain in brains:
        await brain.aclose()


@pytest.mark.parametrize("days", [1, -1])
async def test_10_a_clock_that_jumps_changes_neither_deadline_nor_lease(
    tmp_path: Path, endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    real = time.time

    @tool(effect="pure")
    def jump() -> int:
        """Turn the clock."""
        monkeypatch.setattr(time, "time", lambda: real() + days * 86400)
        return 1

    other = SqliteStore(tmp_path / "bill.db")
    brain = Brain(ScriptedModel([call("jump"), "done"]), tools=[jump], ledger=tmp_path / "bill.db")
    token = brain.ledger.store.claim()
    result = await brain.run("go", run_id="r", timeout=120)
    assert result.output == "done"
    assert other.is_alive(token)
    other.apply([Begin("mine", None, {}, owner=token)]).result()
    with pytest.raises(RunBusy):
        other.apply([Begin("mine", None, {}, owner="f" * 32)]).result()
    other.close()
    await brain.aclose()


def other_parameters(number: int, more: int = 0) -> int:
    """Double a number."""
    return MADE.append(number) or 0


def other_description(number: int) -> int:
    """Double it."""
    return MADE.append(number) or 0


def other_return(number: int) -> str:
    """Double a number."""
    return str(MADE.append(number))


def added() -> int:
    """Something more."""
    return 0


@pytest.mark.parametrize(
    "tools",
    [
        [Tool(other_parameters, name="double", effect="idempotent")],
        [Tool(other_description, name="double", effect="idempotent")],
        [Tool(other_return, name="double", effect="idempotent")],
        [Tool(double, effect="once")],
        [Tool(added)],
    ],
    ids=["parameters", "description", "returns", "effect", "gone"],
)
async def test_11_a_changed_tool_refuses_to_resume(tmp_path: Path, tools: list[Any]) -> None:
    await asyncio.to_thread(half_done, tmp_path)
    before = Ledger(tmp_path / "bill.db").run("r")
    brain = doubling(tmp_path, [], tools=tools)
    with pytest.raises(SchemaChanged, match="double"):
        await brain.run(run_id="r")
    await brain.aclose()
    after = Ledger(tmp_path / "bill.db").run("r")
    assert (after.status, after.reason, after.owner) == (before.status, before.reason, None)
    brain = doubling(tmp_path, ["done"], tools=[Tool(double, effect="idempotent"), Tool(added)])
    assert (await brain.run(run_id="r")).output == "done"
    await brain.aclose()
    brain = doubling(tmp_path, [], tools=tools)  # what is done is given back, whatever became of the tools
    assert (await brain.run(run_id="r")).output == "done"
    await brain.aclose()
    assert MADE == []


async def test_11_a_tool_that_was_missing_and_is_there_now_is_a_change_too(tmp_path: Path) -> None:
    brain = doubling(tmp_path, [call("added"), OSError("cut off")])
    with pytest.raises(OSError, match="cut off"):
        await brain.run("go", run_id="r")
    await brain.aclose()
    brain = doubling(tmp_path, [], tools=[Tool(double, effect="idempotent"), Tool(added)])
    with pytest.raises(SchemaChanged, match="added"):
        await brain.run(run_id="r")
    await brain.aclose()


GOLDEN = ROOT / "tests" / "data" / "ledger-1.sql"


async def test_12_a_file_of_the_first_version_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "bill.db"
    connection = sqlite3.connect(path)
    connection.executescript(GOLDEN.read_text("utf-8"))
    connection.close()
    brain = doubling(tmp_path, ["done now"])
    assert (await brain.run(run_id="half")).output == "done now"
    assert MADE == []
    result = await brain.run(run_id="whole")
    assert (result.output, len(result.calls), len(result.turns)) == ("done then", 2, 2)
    assert brain.ledger.total(run="whole").status == "exact"
    await brain.aclose()
