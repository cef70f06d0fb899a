"""More compute for a better answer, where it pays: each strategy is an asker around askers, so they nest.

::

    from brain.scaling import asker, refine, vote

    ask = asker("openai:gpt-5-mini")
    solve = refine(vote(ask, most=9), check=is_right)
    solution = await solve.solve("...", output_type=int, budget=Budget(usd="0.05"))
    print(solution.value, solution.cost, solution.report)

``vote`` asks several times and counts; ``judge`` compares answers in both orders; ``refine`` revises as long as a check
finds fault; ``decompose`` splits a task into typed parts; ``prove`` accepts what all checks agree on; ``effort`` asks
at the cheapest effort that is enough; ``check_steps`` drops samples with a step that fails. Each keeps to the budgets
and the calls that are declared, and has the bill in its solution. ``Brain(fallback=...)`` and :func:`rung` make any of
them a rung of a specialist's ladder.
"""

from __future__ import annotations

from ..asking import Asker, ModelAsker, Query, Revision, Solution, Tab
from .correlations import Correlation
from .decomposing import Decomposer, decompose
from .effort_reports import EffortLevel, EffortReport, EffortTry
from .efforts import Effort, EffortChoice, effort
from .forms import canonical_form
from .judging import Judge, JudgedPair, Judgement, JudgeReport, judge
from .parts import DecomposeReport, Part, PartType, Split
from .proving import Proof, Prove, ProvenCheck, ProveReport, prove, prove_precision
from .refining import Refine, RefineReport, RefineRound, refine, refine_bound
from .rungs import rung
from .sources import asker
from .step_checks import StepAlarm, StepChecker, StepReport, StepTrust, check_steps
from .stopping import Prediction, StopRule, fixed_error
from .vote_measuring import VoteMeasure
from .vote_reports import VoteCandidate, VoteReport, VoteSample
from .voting import Vote, vote

__all__ = [
    "Asker",
    "Correlation",
    "DecomposeReport",
    "Decomposer",
    "Effort",
    "EffortChoice",
    "EffortLevel",
    "EffortReport",
    "EffortTry",
    "Judge",
    "JudgeReport",
    "JudgedPair",
    "Judgement",
    "ModelAsker",
    "Part",
    "PartType",
    "Prediction",
    "Proof",
    "Prove",
    "ProveReport",
    "ProvenCheck",
    "Query",
    "Refine",
    "RefineReport",
    "RefineRound",
    "Revision",
    "Solution",
    "Split",
    "StepAlarm",
    "StepChecker",
    "StepReport",
    "StepTrust",
    "StopRule",
    "Tab",
    "Vote",
    "VoteCandidate",
    "VoteMeasure",
    "VoteReport",
    "VoteSample",
    "asker",
    "canonical_form",
    "check_steps",
    "decompose",
    "effort",
    "fixed_error",
    "judge",
    "prove",
    "prove_precision",
    "refine",
    "refine_bound",
    "rung",
    "vote",
]
