"""Small models, each good at one thing, served in this process, with every answer checked.

A specialist, its ladder and its card are useful without any brain; this package knows nothing of language models.
"""

from __future__ import annotations

import logging

from .card import Card, read_card
from .climb import Hooks, LadderRung, Question, Rung
from .costs import Cost
from .define import Answer, Classification, Effort, Specialist, specialist
from .errors import (
    CannotAnswer,
    CardError,
    CasesError,
    DeadlinePassed,
    DefinitionError,
    InvalidAnswer,
    InvalidArguments,
    MissingRuntime,
    ModelFailed,
    ModelRejected,
    Overloaded,
    Quarantined,
    ScaffoldError,
    SpecialistError,
    UnknownSpecialist,
    UntrustedFolder,
    WorkerDied,
)
from .ladder import Attempt, Outcome, Policy, RungPolicy, decide, replay
from .onnx import OnnxModel
from .registry import load, names
from .verifiers import Verdict, Verifier

__all__ = [
    "Answer",
    "Attempt",
    "CannotAnswer",
    "Card",
    "CardError",
    "CasesError",
    "Classification",
    "Cost",
    "DeadlinePassed",
    "DefinitionError",
    "Effort",
    "Hooks",
    "InvalidAnswer",
    "InvalidArguments",
    "LadderRung",
    "MissingRuntime",
    "ModelFailed",
    "ModelRejected",
    "OnnxModel",
    "Outcome",
    "Overloaded",
    "Policy",
    "Quarantined",
    "Question",
    "Rung",
    "RungPolicy",
    "ScaffoldError",
    "Specialist",
    "SpecialistError",
    "UnknownSpecialist",
    "UntrustedFolder",
    "Verdict",
    "Verifier",
    "WorkerDied",
    "decide",
    "load",
    "names",
    "read_card",
    "replay",
    "specialist",
]

DISTRIBUTION = "brain-specialists"
"""How ``brain`` knows that the package ``specialists`` it finds is this one."""

logging.getLogger("specialists").addHandler(logging.NullHandler())
