"""What a type checker sees of a specialist: its function's parameters, and the type of its answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

APPLICATION = """
from __future__ import annotations

from typing import Any, assert_type

from specialists import Answer, Effort, Outcome, Verdict, specialist


@specialist
def plain(x: int, y: str = "a") -> float:
    return 0.5


@specialist
async def awaited(x: int) -> str:
    return "a"


@specialist
def answered(x: int) -> Answer[list[int]]:
    return Answer([x], confidence=0.5)


@specialist
async def both(x: int) -> Answer[bytes]:
    return Answer(b"", steps=1)


def check(arguments: Any, value: Any) -> Verdict:
    return Verdict.passed()


async def slow_check(arguments: Any, value: Any) -> bool:
    return True


@specialist(verify=check, sound=True, min_confidence=0.9, timeout=2.0, steps=(4, 8))
async def declared(x: int, effort: Effort = Effort()) -> Answer[str]:
    return Answer("a")


@specialist(name="two", verify=slow_check, next=plain)
def declared_plain(x: int) -> str:
    return "a"


async def main() -> None:
    assert_type(await plain(1, y="b"), Answer[float])
    assert_type(await awaited(1), Answer[str])
    assert_type(await answered(1), Answer[list[int]])
    assert_type((await both(1)).value, bytes)
    assert_type(await plain.solve(1), Outcome[float])
    assert_type((await answered.solve(1)).value, list[int] | None)
    assert_type(await declared(1), Answer[str])
    assert_type(declared.solve_sync(1, Effort(max_steps=2)), Outcome[str])
    assert_type(declared_plain.solve_sync(x=1).value, str | None)
    await plain("1")  # type: ignore[arg-type]
    await plain()  # type: ignore[call-arg]
    await declared.solve(1, z=2)  # type: ignore[call-arg]


specialist(min_confidence="high")  # type: ignore[call-overload]
"""


def test_the_signature_is_kept_for_type_checkers(tmp_path: Path) -> None:
    file = tmp_path / "application.py"
    file.write_text(APPLICATION)
    # Unused ignores are errors under --strict, so what must be refused is held too.
    command = [sys.executable, "-m", "mypy", "--strict", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout + done.stderr
