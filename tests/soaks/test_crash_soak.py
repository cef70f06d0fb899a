"""A process that is killed again and again, at moments that nobody chose, while it makes a run of many steps."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from brain import Brain, Ledger, OpenAIModel, Price, RunContext, tool
from brain.testing import FakeEndpoint, call
from tests.soak import scaled

ROOT = Path(__file__).parents[2]
PRICE = Price(input=1, output=2)

CHILD = """
import sys
from tests.soaks.test_crash_soak import brain_of
print(brain_of(sys.argv[1], sys.argv[2]).run_sync("go", run_id="soak").output)
"""


def brain_of(folder: str, url: str) -> Brain[str]:
    """A brain whose tool leaves the key of each call in a file."""

    @tool(effect="idempotent")
    def act(ctx: RunContext[Any], number: int) -> int:
        """Act."""
        with open(os.path.join(folder, "effects"), "a") as file:
            file.write(f"{number} {ctx.idempotency_key}\n")
        return number

    model = OpenAIModel("fake-model", base_url=url, api_key="soak-key-0123", price=PRICE)
    return Brain(model, tools=[act], ledger=os.path.join(folder, "bill.db"), turn_limit=10_000)


def test_5_killed_at_random_moments(tmp_path: Path) -> None:
    turns, kills = scaled(1_000) // 2, scaled(200)
    chance = random.Random(5)
    killed, kept = 0, dict[str, Any]()

    async def answers(body: dict[str, Any]) -> Any:
        made = sum(message["role"] == "tool" for message in body["messages"])
        # No faster than the kills come, or a quick machine would be done before them.
        while killed < kills and made > turns * (killed + 1) // kills:  # noqa: ASYNC110 (another thread counts)
            await asyncio.sleep(0.002)
        return "done" if made >= turns else call("act", number=made)

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, str(tmp_path), endpoint.base_url]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with FakeEndpoint(answers) as endpoint:
        ledger = Ledger(tmp_path / "bill.db")
        process = start()
        endpoint.wait_for(1, timeout=120)  # the run is in the journal now
        while killed < kills:
            seen = len(endpoint.requests)
            # A child that is killed before it asks anything again teaches nothing: the moment is one while it works.
            for _ in range(6_000):
                if process.poll() is not None or len(endpoint.requests) > seen:
                    break
                time.sleep(0.01)
            time.sleep(chance.random() * 0.05)
            assert process.poll() is None, process.communicate()
            process.kill()
            process.communicate()
            now = {step.step: step.result for step in ledger.steps("soak") if step.result is not None}
            assert {name: now.get(name) for name in kept} == kept, "nothing that was committed is lost or changed"
            kept = now
            process = start()
            killed += 1
        out, errors = process.communicate(timeout=540)
        assert out == "done\n", errors
        assert ledger.run("soak").status == "done"
        results = {step.step: step.result for step in ledger.steps("soak")}
        assert {name: results[name] for name in kept} == kept
        assert len(results) == 2 * turns + 1

        lines = [line.split() for line in (tmp_path / "effects").read_text().splitlines()]
        assert {int(number) for number, _ in lines} == set(range(turns))
        assert len({key for _, key in lines}) == turns, "a call has one key, however often it is made"
        again = {number for number, count in Counter(number for number, _ in lines).items() if count > 1}
        times = {step.step: step.times for step in ledger.steps("soak")}
        assert all(times[f"turn {number}, call 0"] > 1 for number in again), "only what was in flight is made again"
        assert sum(times.values()) - len(times) <= 2 * killed, "each kill cuts off what was in flight, and nothing else"

        sent = [each.headers["idempotency-key"] for each in endpoint.requests]
        assert len(set(sent)) == turns + 1
        assert len(sent) <= turns + 1 + killed
        # The ledger's sum is the meter's: what was cut off lies within its bounds, and all else is exact.
        rows = ledger.rows(kind="model")
        price = sum(row.input + 2 * row.output for row in endpoint.meter)
        total = ledger.total(kind="model")
        assert total.high is not None
        assert total.low * 1_000_000 <= price <= total.high * 1_000_000
        assert len(rows) >= len(sent)
        lost = [row for row in rows if row.outcome is None]
        assert len(lost) <= killed
        settled = sum((row.cost.low for row in rows if row.outcome is not None), start=total.low * 0)
        assert settled == total.low
        ledger.close()


def test_5_a_run_that_was_done_says_what_one_that_nobody_killed_says(tmp_path: Path) -> None:
    def answers(body: dict[str, Any]) -> Any:
        made = sum(message["role"] == "tool" for message in body["messages"])
        return "done" if made >= 3 else call("act", number=made)

    async def whole() -> Any:
        async with brain_of(str(tmp_path), endpoint.base_url) as brain:
            return await brain.run("go", run_id="whole")

    with FakeEndpoint(answers) as endpoint:
        first = asyncio.run(whole())
        again = asyncio.run(whole())
    assert again.messages == first.messages
    assert again.turns == first.turns
    assert again.wire_attempts == first.wire_attempts
    assert [each.to_json() for each in again.calls] == [each.to_json() for each in first.calls]
    assert again.usage.cost == first.usage.cost
