"""Reads a log, or a ledger, back: are its decisions reproduced, and what would another policy have done and cost?

Both questions go through :func:`specialists.ladder.decide`, the function that live calls climb by; no model runs. An
answer that was never asked for is not guessed: where another policy wants a rung that the log has no attempt on, that
call's end is unknown, and then nothing is estimated for the policy at all.

What this module does not know: terminals, and time limits. A logged attempt counts as the rung's answer whatever came
before it, as rungs are asked independently. Three do not when other attempts come before them: one that ran out of
time or budget, a vote in which an earlier answer has a voice, and a big model that is told what was wrong with its
first answer.
"""

from __future__ import annotations

from .comparing import Comparison, Difference, Side, compare
from .decisions import FORMAT, Reproduction, cut_short, difference, reproduce
from .intervals import cost_bound, paired_intervals, runs_needed, student_t
from .ledger_reading import LedgerReader, calls_of, is_ledger, open_ledger
from .policies import PolicyChange, Untried, Walk, walk
from .reading import Labels, Logged, OutcomeReader

__all__ = [
    "FORMAT",
    "Comparison",
    "Difference",
    "Labels",
    "LedgerReader",
    "Logged",
    "OutcomeReader",
    "PolicyChange",
    "Reproduction",
    "Side",
    "Untried",
    "Walk",
    "calls_of",
    "compare",
    "cost_bound",
    "cut_short",
    "difference",
    "is_ledger",
    "open_ledger",
    "paired_intervals",
    "reproduce",
    "runs_needed",
    "student_t",
    "walk",
]
