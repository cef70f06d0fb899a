"""``certificate.json``: what it holds for, when it is void, and what becomes of one that somebody wrote by hand."""

from __future__ import annotations

import json
import logging
import os
import re
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specialists import (
    Answer,
    Certificate,
    CertificateError,
    Effort,
    OnnxModel,
    Watch,
    calibrate,
    load,
    read_certificate,
    specialist,
)
from specialists.calibration import calibrate_async
from specialists.card import CARD, read_card, seal
from specialists.certificates import CERTIFICATE, folder_digest
from specialists.ladder import NO_MODEL
from specialists.runtime import runtime_version

from . import graphs
from .folders import of_task, with_code

HEX = "0123456789abcdef" * 4


def certificate(**changed: Any) -> dict[str, Any]:
    """One that could be, as JSON."""
    group = {
        "group": None,
        "cases": 400,
        "n": 300,
        "errors": 0,
        "level": 0.05,
        "coverage": 0.75,
        "coverage_low": 0.7,
        "coverage_high": 0.8,
        "policy": {"specialist": {"unknown": 0.5}},
    }
    whole = {
        "specialist": "doubler",
        "alpha": 0.01,
        "delta": 0.05,
        "n": 300,
        "errors": 0,
        "coverage": 0.75,
        "coverage_low": 0.7,
        "coverage_high": 0.8,
        "groups": [group],
        "cases": 500,
        "cases_sha256": HEX,
        "drawn": "distinct",
        "folder": HEX,
        "ladder": HEX,
        "models": [NO_MODEL],
        "made": "2026-01-02",
    }
    return whole | changed


def made(**changed: Any) -> Certificate:
    return Certificate.model_validate_json(json.dumps(certificate(**changed)))


# The file.


def test_it_can_be_written_and_read(tmp_path: Path) -> None:
    one = made(scores_edges=[0.25, 0.5], scores_counts=[1, 2, 3, 0])
    one.write(tmp_path / CERTIFICATE)
    again = read_certificate(tmp_path)
    assert again == one
    assert again is not None
    assert again.id == one.id != made().id
    assert read_certificate(tmp_path / CERTIFICATE) == one
    assert os.listdir(tmp_path) == [CERTIFICATE]
    assert again.made == date(2026, 1, 2)


def test_there_may_be_none(tmp_path: Path) -> None:
    assert read_certificate(tmp_path) is None
    assert read_certificate(tmp_path / "not.json") is None


def test_floors_are_kept_to_the_last_bit(tmp_path: Path) -> None:
    floor = float(np.nextafter(np.float64(np.float32(0.1)), 1))
    group = certificate()["groups"][0] | {"policy": {"specialist": {"unknown": floor}}}
    made(groups=[group]).write(tmp_path / CERTIFICATE)
    again = read_certificate(tmp_path)
    assert again is not None
    assert again.groups[0].policy["specialist"].floors().unknown == floor


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        made().write(tmp_path / "nowhere" / CERTIFICATE)
    (tmp_path / CERTIFICATE).mkdir()
    with pytest.raises(OSError, match=CERTIFICATE):
        made().write(tmp_path / CERTIFICATE)
    assert os.listdir(tmp_path) == [CERTIFICATE]


RUBBISH: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("no JSON", b"certified!"),
    ("no object", b"[1]"),
    ("null", b"null"),
    ("not UTF-8", b'{"specialist": "\xff"}'),
    ("nested", b"[" * 100_000),
    ("another format", json.dumps(certificate(format=2)).encode()),
    ("another policy", json.dumps(certificate(policy_format=2)).encode()),
    ("a word too many", json.dumps(certificate(trust="me")).encode()),
    ("a word too few", json.dumps({**certificate(), "groups": None}).encode()),
    ("alpha of one", json.dumps(certificate(alpha=1)).encode()),
    ("alpha of nothing", json.dumps(certificate(alpha=0)).encode()),
    ("alpha of NaN", json.dumps(certificate(alpha=float("nan"))).encode()),
    ("delta of text", json.dumps(certificate(delta="sure")).encode()),
    ("coverage above one", json.dumps(certificate(coverage=1.5)).encode()),
    ("fewer than no errors", json.dumps(certificate(errors=-1)).encode()),
    ("a count without end", json.dumps(certificate()).replace('"n": 300', '"n": ' + "9" * 5_000).encode()),
    ("another hash", json.dumps(certificate(ladder="../../etc/passwd")).encode()),
    ("an endless group", json.dumps(certificate(groups=[certificate()["groups"][0] | {"group": "x" * 201}])).encode()),
    (
        "a floor below nothing",
        json.dumps(
            certificate(groups=[certificate()["groups"][0] | {"policy": {"specialist": {"unknown": -1}}}])
        ).encode(),
    ),
    ("scores without order", json.dumps(certificate(scores_edges=[0.5, 0.1], scores_counts=[1, 2, 3, 0])).encode()),
    ("scores of NaN", json.dumps(certificate(scores_edges=[float("nan")], scores_counts=[1, 2, 3])).encode()),
    ("scores too few", json.dumps(certificate(scores_edges=[0.5], scores_counts=[1])).encode()),
    ("too large", b" " * (4 * 1024**2) + b"{}"),
]


@pytest.mark.parametrize("content", [each for _, each in RUBBISH], ids=[name for name, _ in RUBBISH])
def test_what_is_no_certificate_is_said_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CERTIFICATE).write_bytes(content)
    with pytest.raises(CertificateError) as error:
        read_certificate(tmp_path)
    assert len(str(error.value)) < 2_000
    assert str(tmp_path / CERTIFICATE) in str(error.value)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    target = tmp_path / "real.json"
    made().write(target)
    for name in ("link", "pipe", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "link" / CERTIFICATE).symlink_to(target)
    os.mkfifo(tmp_path / "pipe" / CERTIFICATE)
    (tmp_path / "folder" / CERTIFICATE).mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(CertificateError):
            read_certificate(tmp_path / name)


# The digest of the folder.


def test_the_digest_is_of_every_file_but_the_certificate_and_the_readme(tmp_path: Path) -> None:
    folder = with_code(tmp_path / "doubler")
    before = folder_digest(folder)
    assert before == folder_digest(folder, read_card(folder).files)
    (folder / "README.md").write_text("prose")
    (folder / CERTIFICATE).write_text("{}")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "code.pyc").write_bytes(b"x")
    assert folder_digest(folder) == before
    seal(folder)
    assert folder_digest(folder) == before
    for change in ("code.py", "cases.jsonl", CARD, "new.txt", "deep/README.md"):
        path = folder / change
        path.parent.mkdir(exist_ok=True)
        content = path.read_bytes() if path.exists() else None
        path.write_bytes((content or b"") + b"\n")
        assert folder_digest(folder) != before, change
        path.unlink()
        if content is not None:
            path.write_bytes(content)
    assert folder_digest(folder) == before
    (folder / "code.py").rename(folder / "edoc.py")
    assert folder_digest(folder) != before


def test_the_digest_is_of_no_place(tmp_path: Path) -> None:
    one, other = of_task(tmp_path / "one"), of_task(tmp_path / "two" / "deep")
    assert folder_digest(one) == folder_digest(other)


# A folder with a certificate.


def calibrated(place: Path, rows: list[dict[str, Any]], **changed: Any) -> Certificate:
    """Calibrate the folder's specialist and put the certificate there."""
    found = calibrate(load(place, trust=True), rows, alpha=0.1, folder=folder_digest(place), precision="float32")
    one = found.certificate.model_copy(update=changed)
    one.write(place / CERTIFICATE)
    return one


MOODS = [
    {"input": {"text": f"{text} {number}"}, "expected": {"label": label}}
    for text, label in (("so very happy", "glad"), ("such an awful day", "sad"))
    for number in range(40)
]
DOUBLES = [{"input": {"number": number}, "expected": 2 * number} for number in range(1, 60)]


def ask(folder: Path, accept: Any = "certified", **arguments: Any) -> tuple[str | None, str, str]:
    s = load(folder, trust=True)
    outcome = s.under(accept).solve_sync(**(arguments or {"text": "a happy stone"}))
    state = outcome.certificate
    assert state is not None
    assert (outcome.accepted_by == "certified") <= (state.status == "valid")
    return outcome.accepted_by, state.status, str(state.reason)


def test_it_holds_for_the_folder_it_was_made_in_and_for_a_copy(tmp_path: Path) -> None:
    folder = of_task(tmp_path / "mood")
    one = calibrated(folder, MOODS)
    assert (one.n, one.provider, one.onnxruntime) == (80, "CPUExecutionProvider", runtime_version())
    (model,) = one.models
    assert re.fullmatch(rf"[0-9a-f]{{32}}/CPUExecutionProvider/{re.escape(str(runtime_version()))}", model)
    assert ask(folder) == ("certified", "valid", "None")
    moved = folder.rename(tmp_path / "elsewhere")
    (moved / "README.md").write_text("moved")
    assert ask(moved) == ("certified", "valid", "None")


def test_a_changed_file_voids_it_and_the_floor_stands_again(tmp_path: Path) -> None:
    folder = of_task(tmp_path / "mood")
    calibrated(folder, MOODS)
    with (folder / "cases.jsonl").open("a") as file:
        file.write("\n")
    seal(folder)
    accepted, status, reason = ask(folder)
    assert (accepted, status) == (None, "void")
    assert "the folder's files are not those" in reason
    assert ask(folder, "confident")[:2] == ("confident", "void")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"specialist": "mood2"}, "of the specialist 'mood2'"),
        ({"folder": None}, "folder's files"),
        ({"folder": HEX}, "folder's files"),
        ({"ladder": HEX}, "the ladder or the verifier"),
        ({"models": ("f" * 32 + "/CPUExecutionProvider/1.0",)}, "it was made with ffff"),
        ({"models": ()}, "and here ran"),
        ({"models": (NO_MODEL,)}, "it was made with no model"),
        ({"groups": ()}, "none was made for calls without a group"),
    ],
)
def test_what_it_does_not_name_it_does_not_hold_for(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    folder = of_task(tmp_path / "mood")
    calibrated(folder, MOODS, **change)
    accepted, status, reason = ask(folder)
    assert accepted is None
    assert status == ("missing" if "groups" in change else "void")
    assert says in reason
    assert ask(folder, "confident")[0] == "confident"


def test_another_provider_or_runtime_voids_it(tmp_path: Path) -> None:
    folder = of_task(tmp_path / "mood")
    (model,) = calibrated(folder, MOODS).models
    digest, provider, version = model.split("/")
    for other in (f"{digest}/CUDAExecutionProvider/{version}", f"{digest}/{provider}/0.9", f"{digest}/{provider}"):
        calibrated(folder, MOODS, models=(other,))
        assert ask(folder)[:2] == (None, "void")
    calibrated(folder, MOODS, models=("another", model))
    assert ask(folder)[:2] == ("certified", "valid")


def test_a_folder_nobody_trusts_has_no_valid_one(tmp_path: Path) -> None:
    folder = of_task(tmp_path / "mood")
    calibrated(folder, MOODS)
    s = load(folder)
    state = s.certificate_state()
    assert (state.status, state.reason) == ("void", "it lies in a folder that nobody has trusted")
    trusted = load(folder, trust=True)
    assert trusted.certificate_state().status == "valid"


@pytest.mark.parametrize("content", [each for _, each in RUBBISH[:8]], ids=[name for name, _ in RUBBISH[:8]])
def test_rubbish_in_a_folder_is_warned_of_and_is_as_if_there_were_none(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = with_code(tmp_path / "doubler")
    (folder / CERTIFICATE).write_bytes(content)
    with caplog.at_level(logging.WARNING, "specialists"):
        s = load(folder, trust=True)
    (record,) = caplog.records
    assert "as if there were none" in record.getMessage()
    state = s.certificate_state()
    assert (state.status, state.reason) == ("missing", "none was made")


def test_a_proof_stands_whatever_becomes_of_the_certificate(tmp_path: Path) -> None:
    folder = with_code(tmp_path / "doubler")
    calibrated(folder, DOUBLES, folder=HEX)
    assert ask(folder, number=4)[:2] == ("verified", "void")


def test_loading_twice_shares_what_it_shared_before(tmp_path: Path) -> None:
    folder = of_task(tmp_path / "mood")
    calibrated(folder, MOODS)
    one, other = load(folder, trust=True), load(folder, trust=True)
    assert one.function is other.function
    assert one.breaker is other.breaker


def test_a_call_with_a_cap_on_its_steps_is_another_decoding(tmp_path: Path) -> None:
    @specialist(steps=(2, 8))
    async def thinker(x: int, effort: Effort) -> Answer[int]:
        """Think."""
        return Answer(x, 0.9)

    found = calibrate(thinker, [{"input": {"x": x}, "expected": x} for x in range(100)], alpha=0.1)
    s = thinker.with_certificate(found.certificate)
    for cap, status in ((None, "valid"), (8, "valid"), (9, "valid"), (7, "void"), (1, "void")):
        outcome = s.under("certified").solve_sync(x=1, effort=Effort(cap))
        assert outcome.certificate is not None
        assert outcome.certificate.status == status
        assert outcome.accepted is (status == "valid")


# A model that is exchanged while it serves.


async def test_a_swap_voids_it_and_swapping_back_makes_it_hold_again(tmp_path: Path) -> None:
    double, triple = graphs.scaled(tmp_path / "double.onnx", 2.0), graphs.scaled(tmp_path / "triple.onnx", 3.0)
    model = OnnxModel(double)

    @specialist(min_confidence=0.5)
    async def times(x: float) -> Answer[float]:
        """Times."""
        found = await model.run(x=np.array([[x]], np.float32))
        return Answer(float(found["y"][0, 0]), 0.9)

    rows = [{"input": {"x": float(x)}, "expected": 2.0 * x} for x in range(60)]
    s = times.with_certificate((await calibrate_async(times, rows, alpha=0.1)).certificate)

    async def told(accept: Any) -> tuple[Any, ...]:
        outcome = await s.under(accept).solve(x=4.0)
        assert outcome.certificate is not None
        return outcome.accepted_by, outcome.value, outcome.certificate.status, str(outcome.reason)

    assert await told("certified") == ("certified", 8.0, "valid", "None")
    await model.swap(triple)
    accepted, value, status, reason = await told("certified")
    assert (accepted, value, status) == (None, None, "void")
    assert "its certificate is void: it was made with" in reason
    assert (await told("confident"))[:3] == ("confident", 12.0, "void")
    await model.swap(double)
    assert await told("certified") == ("certified", 8.0, "valid", "None")
    model.close()


async def test_the_same_bytes_under_another_name_are_the_same_model(tmp_path: Path) -> None:
    double = graphs.scaled(tmp_path / "double.onnx", 2.0)
    (tmp_path / "copy.onnx").write_bytes(double.read_bytes())
    model = OnnxModel(double)

    @specialist
    async def times(x: float) -> float:
        """Times."""
        return float((await model.run(x=np.array([[x]], np.float32)))["y"][0, 0])

    rows = [{"input": {"x": float(x)}, "expected": 2.0 * x} for x in range(60)]
    s = times.with_certificate((await calibrate_async(times, rows, alpha=0.1)).certificate)
    await model.swap(tmp_path / "copy.onnx")
    assert (await s.under("certified").solve(x=4.0)).accepted_by == "certified"
    model.close()


# Words.


def test_hostile_words_are_data(tmp_path: Path) -> None:
    for word in ("\x1b[2J", "a\nb", "'; DROP TABLE", "{}", "%s", "\u202e"):
        one = made(specialist=word, command=word, models=[word], provider=word, groups=[])
        one.write(tmp_path / CERTIFICATE)
        assert read_certificate(tmp_path) == one
        assert word in one.sentence()
        assert one.problem(specialist="doubler", folder=HEX, ladder=HEX) is not None


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        (
            {},
            ["at most 1 %", "95 % confidence", "none wrong of 300 accepted", "75.0 % of the cases", "each input once"],
        ),
        ({"errors": 2, "alpha": 0.025, "delta": 0.1}, ["at most 2.5 %", "90 % confidence", "2 wrong of 300"]),
        ({"uses": 1}, ["looked at 1 time before"]),
        ({"uses": 2, "drawn": "drawn"}, ["looked at 2 times before", "as drawn, with repeats"]),
        ({"drawn": "generated"}, ["made by its generator"]),
        ({"groups": certificate()["groups"] * 2}, ["for 2 groups of calls"]),
    ],
)
def test_the_sentence(changed: dict[str, Any], parts: list[str]) -> None:
    told = made(**changed).sentence()
    for part in parts:
        assert part in told
    assert told.endswith(".")


async def test_what_a_watch_is_told_of_it_can_be_watched() -> None:
    """Whatever is read as a certificate can be watched without an error."""

    @specialist(name="doubler")
    async def doubler(number: int) -> Answer[int]:
        """Twice a number."""
        return Answer(2 * number, 0.9)

    for scores in ({}, {"scores_edges": [], "scores_counts": [5, 0]}):
        one = made(folder=None, ladder=doubler.ladder_digest, **scores)
        s = doubler.with_certificate(one)
        outcome = await s.under("certified", watch=Watch(share=0.0)).solve(number=2)
        assert outcome.accepted_by == "certified"
