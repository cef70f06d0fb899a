"""What a type checker sees of an application: no ``Any`` where a type is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

APPLICATION = """
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Literal, assert_type

from pydantic import BaseModel

from brain import Brain, BrainError, Done, RunContext, RunEvent, RunResult, TextDelta, tool
from brain.testing import ScriptedModel, call


class Point(BaseModel):
    x: int


@tool
def add(a: int, b: int = 2) -> int:
    return a + b


@tool(effect="pure", timeout=1.0)
async def look(ctx: RunContext[dict[str, int]], item: str) -> str:
    return f"{ctx.deps[item]}"


async def main() -> None:
    assert_type(Brain(), Brain[str])
    assert_type(Brain(tools=[add, look, len]), Brain[str])
    assert_type(Brain(ScriptedModel([call("add", a=1)]), output_type=Point), Brain[Point])
    assert_type(await Brain(output_type=Point).run("x"), RunResult[Point])
    assert_type((await Brain().run("x")).output, str)
    assert_type(Brain(output_type=int).run_sync("x").output, int)
    Brain(output_type=Literal["a", "b"])
    Brain(output_type=int | None)
    async with Brain(output_type=Point) as brain, aclosing(brain.run_stream("x")) as events:
        assert_type(brain, Brain[Point])
        async for event in events:
            if isinstance(event, TextDelta):
                assert_type(event.text, str)
            elif isinstance(event, Done):
                print(event.result.usage.cost.low)
    stream: AsyncIterator[RunEvent] = brain.run_stream("x")
    print(stream)
    try:
        await brain.run("x", deps={"tea": 1}, timeout=5, approvals={"id": True})
    except BrainError as error:
        if error.result is not None:
            print(error.result.wire_attempts[0].cost)
    assert_type(add(1), int)
    assert_type(await look(RunContext({}, "run", "call"), "tea"), str)


add("1")  # type: ignore[arg-type]
Brain(accept="maybe")  # type: ignore[call-overload]
"""


def test_an_application_is_typed(tmp_path: Path) -> None:
    file = tmp_path / "application.py"
    file.write_text(APPLICATION)
    # Unused ignores are errors under --strict, so what must be refused is held too.
    command = [sys.executable, "-m", "mypy", "--strict", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout + done.stderr
