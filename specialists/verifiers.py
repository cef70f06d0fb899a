"""Verdicts, and a few ready-made verifiers. This module knows nothing of models or ladders.

A verifier is ``verify(arguments, value) -> Verdict``, sync or async; ``arguments`` is the checked call with its
defaults filled in. It declares nothing about itself: whether it is *sound* (passes nothing wrong) and *complete*
(fails nothing right) is said where a specialist is defined, and is ``False`` unless said. A sync verifier runs on the
event loop: one that takes longer than a few milliseconds is better async, with its work in a thread.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Verdict", "Verifier", "all_of", "matches", "run_verifier"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``passed``, ``failed`` (with a reason) or ``unknown``. Make one with the three methods of these names."""

    status: Literal["passed", "failed", "unknown"]
    reason: str | None = None

    @classmethod
    def passed(cls, reason: str | None = None) -> Verdict:
        """The check found nothing wrong."""
        return cls("passed", reason)

    @classmethod
    def failed(cls, reason: str) -> Verdict:
        """The check found this wrong."""
        return cls("failed", reason)

    @classmethod
    def unknown(cls, reason: str | None = None) -> Verdict:
        """The check could not tell."""
        return cls("unknown", reason)


Verifier: TypeAlias = Callable[[Mapping[str, Any], Any], "Verdict | bool | Awaitable[Verdict | bool]"]


async def run_verifier(verify: Verifier, arguments: Mapping[str, Any], value: Any) -> Verdict:
    """Run one verifier. ``True`` and ``False`` are read as passed and failed; one that raises could not tell."""
    try:
        result = verify(arguments, value)
        if inspect.isawaitable(result):
            result = await result
        if not isinstance(result, Verdict) and hasattr(result, "item"):
            result = result.item()  # numpy's own bool, as a comparison of arrays gives it
    except Exception as error:
        return Verdict.unknown(f"the verifier raised {type(error).__name__}: {error}")
    if isinstance(result, Verdict):
        return result
    if isinstance(result, bool):
        return Verdict.passed() if result else Verdict.failed(f"{_name(verify)} says no")
    return Verdict.unknown(f"the verifier returned {type(result).__name__}, not a Verdict")


def all_of(*verifiers: Verifier) -> Verifier:
    """A verifier that passes when all pass, fails when one fails, and is otherwise unknown. Stops at the first fail."""

    async def verify(arguments: Mapping[str, Any], value: Any) -> Verdict:
        result = Verdict.passed()
        for part in verifiers:
            verdict = await run_verifier(part, arguments, value)
            if verdict.status == "failed":
                return verdict
            if verdict.status == "unknown":
                result = verdict
        return result

    return verify


def matches(pattern: str) -> Verifier:
    """A verifier that passes a string when the whole of it matches the regular expression ``pattern``."""
    compiled = re.compile(pattern)

    def verify(arguments: Mapping[str, Any], value: Any) -> Verdict:
        if isinstance(value, str) and compiled.fullmatch(value):
            return Verdict.passed()
        return Verdict.failed(f"the answer does not match {pattern}")

    return verify


def _name(verify: Verifier) -> str:
    return getattr(verify, "__name__", type(verify).__name__)
