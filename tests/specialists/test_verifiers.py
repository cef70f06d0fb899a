from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from specialists import Verdict
from specialists.verifiers import all_of, matches, run_verifier


async def passes(arguments: Any, value: Any) -> bool:
    return True


def fails(arguments: Any, value: Any) -> bool:
    return False


def unsure(arguments: Any, value: Any) -> Verdict:
    return Verdict.unknown("too hard")


def raises(arguments: Any, value: Any) -> bool:
    raise ZeroDivisionError("no")


@pytest.mark.parametrize(
    ("verify", "status", "reason"),
    [
        (passes, "passed", None),
        (fails, "failed", "fails says no"),
        (unsure, "unknown", "too hard"),
        (raises, "unknown", "the verifier raised ZeroDivisionError: no"),
        (lambda arguments, value: None, "unknown", "the verifier returned NoneType, not a Verdict"),
        (lambda arguments, value: 1, "unknown", "the verifier returned int, not a Verdict"),
        (lambda arguments, value: (np.array([1, 2]) == np.array([1, 2])).all(), "passed", None),
        (lambda arguments, value: np.array([1, 2]) == np.array([1, 2]), "unknown", None),
        (lambda value: True, "unknown", None),
    ],
)
async def test_a_verifier_gives_a_verdict_whatever_it_does(verify: Any, status: str, reason: str | None) -> None:
    verdict = await run_verifier(verify, {}, 1)
    assert verdict.status == status
    if reason is not None:
        assert verdict.reason == reason


async def test_a_cancellation_is_not_a_verdict() -> None:
    async def slow(arguments: Any, value: Any) -> bool:
        await asyncio.sleep(60)
        return True

    task = asyncio.ensure_future(run_verifier(slow, {}, 1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_all_of_fails_with_the_first_and_doubts_with_any() -> None:
    assert (await run_verifier(all_of(passes, passes), {}, 1)).status == "passed"
    assert (await run_verifier(all_of(passes, unsure), {}, 1)).reason == "too hard"
    assert (await run_verifier(all_of(unsure, fails, raises), {}, 1)).status == "failed"
    assert (await run_verifier(all_of(), {}, 1)).status == "passed"


@pytest.mark.parametrize(
    ("value", "status"), [("abc", "passed"), ("abc\n", "failed"), ("xabc", "failed"), (5, "failed")]
)
async def test_matches_asks_for_the_whole_string(value: Any, status: str) -> None:
    assert (await run_verifier(matches("[a-c]+"), {}, value)).status == status
