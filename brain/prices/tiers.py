"""Service tiers by the names that endpoints give them: which are one and the same, and which may serve a request."""

from __future__ import annotations

__all__ = ["CHEAPER", "STANDARD", "served", "tier_name"]

STANDARD = "standard"
CHEAPER = frozenset({"flex", "batch"})
"""Tiers that are slower for less money: without a price of their own, the standard one is the most they cost."""

_SAME = {"": STANDARD, "auto": STANDARD, "default": STANDARD, "on_demand": STANDARD, "fast": "priority"}


def tier_name(tier: str | None) -> str:
    """One name for each tier: ``default``, ``auto`` and ``on_demand`` are ``standard``, ``fast`` is ``priority``."""
    name = (tier or "").strip().lower()
    return _SAME.get(name, name)


def served(asked: str | None, stated: str | None) -> tuple[str, ...]:
    """The tiers that may have served a request: the one that the answer states, else the asked one or the standard."""
    if stated is not None:
        return (tier_name(stated),)
    return tuple(dict.fromkeys((tier_name(asked), STANDARD)))
