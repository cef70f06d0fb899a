"""Small models, each good at one thing, served in this process, with every answer checked.

A specialist, its ladder and its card are useful without any brain; this package knows nothing of language models.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers import Answer, Classification, Effort
    from .calibration import calibrate
    from .card import Card, read_card
    from .certificates import Certificate, read_certificate
    from .climb import Hooks, LadderRung, Question, Rung
    from .costs import Cost
    from .define import Specialist, specialist
    from .errors import (
        CannotAnswer,
        CannotCertify,
        CardError,
        CasesError,
        CertificateError,
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
        WatchError,
        WorkerDied,
    )
    from .isolation import IsolatedModel
    from .ladder import Attempt, CertificateState, Floors, Outcome, Policy, RungPolicy, decide, replay
    from .onnx import OnnxModel, set_memory_limit
    from .recursion import OnnxStep, RecursiveModel, StepResult, StepScheduler
    from .registry import load, names
    from .verifiers import Verdict, Verifier
    from .voting import Symmetry
    from .watching import MemoryStore, SqliteStore, Watch

__all__ = [
    "Answer",
    "Attempt",
    "CannotAnswer",
    "CannotCertify",
    "Card",
    "CardError",
    "CasesError",
    "Certificate",
    "CertificateError",
    "CertificateState",
    "Classification",
    "Cost",
    "DeadlinePassed",
    "DefinitionError",
    "Effort",
    "Floors",
    "Hooks",
    "InvalidAnswer",
    "InvalidArguments",
    "IsolatedModel",
    "LadderRung",
    "MemoryStore",
    "MissingRuntime",
    "ModelFailed",
    "ModelRejected",
    "OnnxModel",
    "OnnxStep",
    "Outcome",
    "Overloaded",
    "Policy",
    "Quarantined",
    "Question",
    "RecursiveModel",
    "Rung",
    "RungPolicy",
    "ScaffoldError",
    "Specialist",
    "SpecialistError",
    "SqliteStore",
    "StepResult",
    "StepScheduler",
    "Symmetry",
    "UnknownSpecialist",
    "UntrustedFolder",
    "Verdict",
    "Verifier",
    "Watch",
    "WatchError",
    "WorkerDied",
    "calibrate",
    "decide",
    "load",
    "names",
    "read_card",
    "read_certificate",
    "replay",
    "set_memory_limit",
    "specialist",
]

_HOMES = {
    name: module
    for module, names_there in {
        ".answers": "Answer Classification Effort",
        ".calibration": "calibrate",
        ".card": "Card read_card",
        ".certificates": "Certificate read_certificate",
        ".climb": "Hooks LadderRung Question Rung",
        ".costs": "Cost",
        ".define": "Specialist specialist",
        ".errors": (
            "CannotAnswer CannotCertify CardError CasesError CertificateError DeadlinePassed DefinitionError "
            "InvalidAnswer InvalidArguments MissingRuntime ModelFailed ModelRejected Overloaded Quarantined "
            "ScaffoldError SpecialistError UnknownSpecialist UntrustedFolder WatchError WorkerDied"
        ),
        ".isolation": "IsolatedModel",
        ".ladder": "Attempt CertificateState Floors Outcome Policy RungPolicy decide replay",
        ".onnx": "OnnxModel set_memory_limit",
        ".recursion": "OnnxStep RecursiveModel StepResult StepScheduler",
        ".registry": "load names",
        ".verifiers": "Verdict Verifier",
        ".voting": "Symmetry",
        ".watching": "MemoryStore SqliteStore Watch",
    }.items()
    for name in names_there.split()
}
"""Where each public name is made: its module is imported when the name is first asked for."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


DISTRIBUTION = "brain-specialists"
"""How ``brain`` knows that the package ``specialists`` it finds is this one."""

logging.getLogger("specialists").addHandler(logging.NullHandler())
