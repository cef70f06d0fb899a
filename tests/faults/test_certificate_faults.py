"""Promise of a calibrated threshold; the number in a test's name is its row in the table of promises."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from brain import Brain
from brain.testing import ScriptedModel, call
from specialists import Answer, CannotAnswer, Verdict, Watch, calibrate, load, specialist
from specialists.auditing import Auditor
from specialists.card import CARD, seal
from specialists.certificates import CERTIFICATE, folder_digest
from specialists.define import Specialist

from ..specialists.folders import of_task

IN_SCOPE, OUTSIDE = range(3_000), range(10_000, 13_000)


def noise(x: int) -> float:
    return random.Random(x).random()


def is_number(arguments: Any, value: str) -> Verdict:
    """Complete, and no proof."""
    return Verdict.passed() if value in ("even", "odd") else Verdict.failed("it is neither")


def model(x: int) -> tuple[str, float]:
    """Mostly right where it is sure; outside of what it has seen it guesses, and is seldom sure of it."""
    sure = noise(x)
    if x >= 10_000:
        return ("even" if noise(x + 1) < 0.5 else "odd"), 0.7 * sure
    wrong = noise(-x - 1) < 0.4 * (1 - sure) ** 2
    return ("even" if (x % 2 == 0) is not wrong else "odd"), sure


@pytest.fixture(scope="module")
def parity() -> Specialist[..., Any]:
    """Calibrated on cases of both kinds: outside of its scope the right answer is none."""

    @specialist(name="parity", verify=is_number, complete=True, min_confidence=0.05)
    async def parity(x: int) -> Answer[str]:
        """Whether a number is even or odd."""
        value, sure = model(x)
        return Answer(value, sure)

    rows = [{"input": {"x": x}, "expected": "even" if x % 2 == 0 else "odd"} for x in IN_SCOPE[:2_000]]
    rows += [{"input": {"x": x}, "expected": None} for x in OUTSIDE[:1_000]]
    return parity.with_certificate(calibrate(parity, rows, alpha=0.05, delta=0.05).certificate)


async def test_26_what_is_unsure_or_out_of_distribution_is_abstained_from(parity: Specialist[..., Any]) -> None:
    floor = parity.certificate.groups[0].policy["specialist"].floors().passed  # type: ignore[union-attr]
    assert floor is not None
    assert floor > 0.5
    accepted = wrong = 0
    for x in (*IN_SCOPE[2_000:], *OUTSIDE[1_000:1_500]):  # drawn as the cases were, and none of them
        outcome = await parity.under("certified").solve(x=x)
        assert outcome.accepted_by in ("certified", None)
        assert (outcome.accepted_by == "certified") == (outcome.attempts[0].confidence >= floor)  # type: ignore[operator]
        if outcome.accepted:
            accepted += 1
            wrong += x >= 10_000 or outcome.value != ("even" if x % 2 == 0 else "odd")
        else:
            assert outcome.value is None
            assert "is below what its certificate accepts" in str(outcome.reason)
    assert accepted > 200
    # 5 % of some 260 is 13; 24 and more would be a chance of one in three hundred even at a rate of just 5 %.
    assert wrong < 24
    # The declared floor took nearly everything, out of scope too: what is tested here is the certificate.
    without = parity.with_certificate(None)
    assert sum([(await without.under("confident").solve(x=x)).accepted for x in OUTSIDE[:100]]) > 80


@pytest.mark.parametrize("accept", ["certified", "confident"])
async def test_26_in_a_brain_it_escalates(parity: Specialist[..., Any], accept: Any) -> None:
    sure, unsure = (
        next(x for x in IN_SCOPE if model(x)[1] > 0.95),
        next(x for x in OUTSIDE if model(x)[1] > 0.3),
    )
    for x, answered_by, accepted_by in (
        (sure, "specialist", "certified"),
        (unsure, "big_model", "unchecked"),
    ):
        planner = ScriptedModel([call("parity", x=x), "done"])
        big = ScriptedModel(['{"answer": "even"}'] * 2)
        result = await Brain(planner, specialists=[parity], fallback=big, accept=accept).run("go")
        (outcome,) = result.calls
        assert (outcome.answered_by, outcome.accepted_by) == (answered_by, accepted_by)
        assert len(big.requests) == (answered_by == "big_model")


async def test_26_in_a_brain_without_a_big_model_it_abstains_and_says_so(parity: Specialist[..., Any]) -> None:
    x = next(x for x in OUTSIDE if model(x)[1] > 0.3)
    planner = ScriptedModel([call("parity", x=x), "I cannot tell."])
    result = await Brain(planner, specialists=[parity], fallback=False, accept="certified").run("go")
    (outcome,) = result.calls
    assert (outcome.value, outcome.accepted_by) == (None, None)
    assert "is below what its certificate accepts" in str(outcome.reason)


@pytest.mark.parametrize("why", ["missing", "void", "revoked", "another group", "no confidence", "a failed check"])
async def test_26_no_way_leads_round_the_certificate(parity: Specialist[..., Any], why: str) -> None:
    x = next(x for x in IN_SCOPE if model(x)[1] > 0.95)
    group = None
    s = parity
    if why == "missing":
        s = parity.with_certificate(None)
    elif why == "void":
        s = parity.with_certificate(parity.certificate, void="a file was changed")
    elif why == "another group":
        group = "elsewhere"
    elif why == "revoked":
        watch = Watch()
        auditor = Auditor.of(watch, parity.certificate, "c", None)  # type: ignore[arg-type]
        for number in range(30):
            watch.audited(auditor.watched, f"w{number}", True, "person")
        outcome = await parity.under("certified", watch=watch).solve(x=x)
        assert (outcome.accepted_by, outcome.certificate.status) == (None, "revoked")  # type: ignore[union-attr]
        return
    else:

        @specialist(name="parity", verify=is_number, complete=True)
        async def other(x: int) -> Answer[str]:
            """Whether a number is even or odd."""
            return Answer("even", None) if why == "no confidence" else Answer("neither", 1.0)

        assert parity.certificate is not None
        s = other.with_certificate(parity.certificate.model_copy(update={"ladder": other.ladder_digest}))
        assert s.certificate_state().status == "valid"
    outcome = await s.under("certified", group=group).solve(x=x)
    assert (outcome.value, outcome.accepted_by) == (None, None)
    assert outcome.reason


async def test_26_a_model_that_gives_up_or_breaks_is_no_answer(parity: Specialist[..., Any]) -> None:
    for end in (CannotAnswer("unknown"), ValueError("broken"), Answer("even", float("nan")), Answer("even", 2.0)):

        @specialist(name="parity", verify=is_number, complete=True)
        async def other(x: int, end: Any = end) -> Answer[str]:
            """Whether a number is even or odd."""
            if isinstance(end, Exception):
                raise end
            return end

        assert parity.certificate is not None
        s = other.with_certificate(parity.certificate.model_copy(update={"ladder": other.ladder_digest}))
        outcome = await s.climb({"x": 4, "end": end}, accept="certified")
        assert (outcome.value, outcome.accepted_by) == (None, None)


def test_26_one_swapped_byte_of_the_model_and_nothing_is_certified(tmp_path: Path) -> None:
    folder = of_task(tmp_path / "mood")
    rows = [
        {"input": {"text": f"{text} {number}"}, "expected": label}
        for text, label in (("so very happy", "glad"), ("such an awful day", "sad"))
        for number in range(40)
    ]
    found = calibrate(load(folder, trust=True), rows, alpha=0.1, folder=folder_digest(folder))
    found.certificate.write(folder / CERTIFICATE)
    asked = load(folder, trust=True).under("certified")
    assert asked.solve_sync(text="happy").accepted_by == "certified"
    content = bytearray((folder / "model.onnx").read_bytes())
    place = content.rindex(b"\x00\x00\xc0@")  # the factor six, to the least bit of it
    content[place] ^= 1
    (folder / "model.onnx").write_bytes(content)
    seal(folder)  # who does not seal is refused as a whole
    outcome = load(folder, trust=True).under("certified").solve_sync(text="happy")
    assert (outcome.value, outcome.accepted_by) == (None, None)
    assert outcome.certificate is not None
    assert (outcome.certificate.status, outcome.policy.rungs[0].certified) == ("void", None)
    # Who had loaded it goes on with the bytes it had checked.
    assert asked.solve_sync(text="happy").accepted_by == "certified"
    # A card that names another model's digest for the same files is another folder too.
    (folder / CARD).write_text((folder / CARD).read_text() + "\n")
    assert load(folder, trust=True).certificate_state().status == "void"
