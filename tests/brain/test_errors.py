"""The tree of errors is the one drawn at the top of its file."""

from __future__ import annotations

import inspect
import re

import brain
from brain import errors


def test_every_error_is_drawn_where_it_hangs_and_is_public() -> None:
    drawn: dict[str, str] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    (?:([│ ]*)(?:├──|└──) )?(\w+)(?: |$)", line)
        if not found:
            continue
        depth = 0 if found[1] is None else 1 + len(found[1]) // 4
        parents[depth:] = [found[2]]
        drawn[found[2]] = parents[depth - 1] if depth else "Exception"
    real = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    assert drawn == real
    assert set(errors.__all__) == set(real)
    assert set(real) <= set(brain.__all__)


def test_they_carry_data_and_begin_without_a_result() -> None:
    assert errors.BrainError("x").result is None
    assert errors.Abstained("why").reason == "why"
    assert errors.RateLimited("x", retry_after=3.0).retry_after == 3.0
    assert errors.ModelError("x").wire_attempts == ()
    assert errors.ApprovalRequired("x").pending == ()
