"""The log of outcomes, and log records with ids."""

from __future__ import annotations

import asyncio
import json
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brain import (
    Brain,
    ConfigurationError,
    OpenAIModel,
    Outcome,
    Price,
    RunResult,
    TurnLimit,
)
from brain.testing import FakeEndpoint, ScriptedModel, SimulatedModel, call
from specialists import Answer, Verdict, replay, specialist
from tests.running import Pair, Point, add, carried


class TestLog:
    async def test_lines_can_be_read_and_replayed(self, tmp_path: Path) -> None:
        import datetime
        import enum

        class Colour(enum.Enum):
            RED = "red"

        circular: list[Any] = []
        circular.append(circular)
        odd: list[Any] = [
            b"\xff\x00",
            {1, 2},
            datetime.datetime(2026, 1, 2),
            Point(x=1),
            Pair(1, "r"),
            Decimal("0.1"),
            float("nan"),
            float("inf"),
            {"deep": [float("nan")]},
            Colour.RED,
            {(1, 2): 3},
            "half \ud800",
            object(),
            circular,
            10**400,
            Path("/tmp"),
            "line\nbreak\u2028",
        ]

        def odd_value(index: int) -> Any:
            """Give something odd."""
            return odd[index]

        @specialist(verify=lambda arguments, value: Verdict.unknown("who knows"), min_confidence=0.5)
        def guess(text: str) -> Answer[str]:
            """Guess."""
            return Answer(text, 0.25)

        path = tmp_path / "log.jsonl"
        asked = [call("odd_value", index=index) for index in range(len(odd))] + [call("guess", text="x")]
        big = SimulatedModel(solve=lambda _: "big", price=Price("1", "2"))
        brain = Brain(ScriptedModel([asked, "done"]), tools=[odd_value], specialists=[guess], fallback=big, log=path)
        result = await brain.run("go", tenant="acme", run_id="r1")
        await brain.aclose()
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        assert len(lines) == len(odd) + 1 == len(result.calls)

        def refuse(constant: str) -> Any:
            raise AssertionError(f"{constant} is not JSON")

        for line, outcome in zip(lines, result.calls, strict=True):
            data = json.loads(line, parse_constant=refuse)
            assert data["tenant"] == "acme"
            assert data["run_id"] == "r1"
            back = Outcome.from_json(data)
            assert back.call_id == outcome.call_id
            assert [str(move) for move in replay(back)] == [str(move) for move in replay(outcome)]

    @pytest.mark.parametrize("name", ["no/such/folder.jsonl", ".", "nul\x00.jsonl"], ids=ascii)
    async def test_a_file_that_cannot_be_written_stops_the_run_before_any_effect(
        self, tmp_path: Path, name: str
    ) -> None:
        model = ScriptedModel([call("add", a=1, b=1), "done"])
        brain = Brain(model, tools=[add], log=tmp_path / name)
        with pytest.raises(ConfigurationError, match="cannot be written") as caught:
            await brain.run("go")
        assert carried(caught.value).calls == ()
        assert model.requests == []

    async def test_a_file_that_fails_later_costs_no_answer(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        brain = Brain(
            ScriptedModel([call("add", a=1, b=1), "first", call("add", a=1, b=1), "second"]), tools=[add], log=path
        )
        await brain.run("go")
        path.unlink()
        path.mkdir()
        with pytest.raises(ConfigurationError, match="cannot be written") as caught:
            await brain.run("go")
        assert carried(caught.value).output == "second"

    async def test_nor_does_it_hide_why_a_run_ended(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        brain = Brain(ScriptedModel([call("add", a=1, b=1)] * 9), tools=[add], log=path, turn_limit=1)
        with pytest.raises(TurnLimit):
            await brain.run("go")
        path.unlink()
        path.mkdir()
        with pytest.raises(TurnLimit):
            await brain.run("go")


async def test_log_records_have_ids_and_no_prompt_text_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    secret = "the-words-of-the-prompt"
    with FakeEndpoint([call("add", a=1, b=2), f"about {secret}"]) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=Price("1", "1"))
        async with Brain(model, tools=[add]) as brain:
            with caplog.at_level(logging.DEBUG):
                result = await brain.run(f"say {secret}", run_id="run-1")
    ours = [record for record in caplog.records if record.name.split(".")[0] in ("brain", "specialists")]
    assert {record.name for record in ours} >= {"brain", "brain.models"}
    assert {record.__dict__["run_id"] for record in ours} == {"run-1"}
    assert result.calls[0].call_id in {record.__dict__["call_id"] for record in ours}
    for record in ours:
        if record.levelno > logging.DEBUG:
            assert secret not in record.getMessage()


def test_log_records_of_concurrent_runs_keep_their_ids(caplog: pytest.LogCaptureFixture) -> None:
    brain = Brain(tools=[add])

    async def both() -> list[RunResult[str]]:
        return await asyncio.gather(*(brain.run(f"add {n} and 1", run_id=f"r{n}") for n in range(5)))

    with caplog.at_level(logging.DEBUG, logger="brain"):
        results = asyncio.run(both())
    pairs = {(r.__dict__["run_id"], r.__dict__["call_id"]) for r in caplog.records if r.__dict__["call_id"]}
    assert pairs == {(result.run_id, result.calls[0].call_id) for result in results}
