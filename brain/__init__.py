"""A general model that plans and calls small specialist models, with every answer checked and every attempt priced.

::

    from brain import Brain

    brain = Brain(specialists=["sudoku", "intent"])      # no key, no network: the built-in planner
    result = brain.run_sync("Route this message: 'I lost my card'")
    print(result.output, result.usage, sep="\\n")
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

import specialists as _specialists

if getattr(_specialists, "DISTRIBUTION", None) != "brain-specialists":
    raise ImportError(
        "the package 'specialists' found at"
        f" {next(iter(getattr(_specialists, '__path__', ())), None) or getattr(_specialists, '__file__', '?')!r} is not"
        " the one that brain needs: remove or rename it, then pip install brain-specialists"
    )

if TYPE_CHECKING:
    from specialists import Attempt, Cost, Outcome, Verdict

    from .agent import Brain
    from .budgets import Budget
    from .cleaning import Cleaned, Cleaner, CleaningReport
    from .context import Context
    from .conversations import MemorySessions, Sessions, SqliteSessions
    from .errors import (
        Abstained,
        ApprovalRequired,
        AuthenticationFailed,
        BrainError,
        BrainProtocolError,
        BudgetExceeded,
        ConfigurationError,
        ContextError,
        ContextOverflow,
        CostLimit,
        EndpointRefused,
        EndpointUnavailable,
        InvalidOutput,
        InvalidToolCall,
        JournalCorrupt,
        JournalError,
        LedgerError,
        MissingKey,
        MissingRuntime,
        ModelError,
        ModelTimeout,
        PriceError,
        PromptError,
        RateLimited,
        RepeatLimit,
        RequestRejected,
        RunBusy,
        RunStopped,
        RunTaken,
        RunTimeout,
        RunUncertain,
        SchemaChanged,
        SessionError,
        TurnLimit,
        UnknownModel,
        UnknownRun,
        UnpricedModel,
    )
    from .events import (
        AttemptMade,
        ChatModel,
        Done,
        Message,
        ModelRequest,
        ModelResponse,
        PendingApproval,
        Plan,
        PlanMade,
        PlanStep,
        RunEvent,
        Sending,
        StepReused,
        TextDelta,
        TokenUsage,
        ToolAnswered,
        ToolCall,
        ToolCalled,
        ToolSchema,
        Turn,
        WireAttempt,
    )
    from .ledger import Ledger, Reservation
    from .models import OpenAIModel
    from .plan_tree import PlanTree
    from .planner import Planner
    from .prices import Price, PriceBook, PriceEntry
    from .receipts import Usage
    from .results import RunResult
    from .savings import Savings
    from .storage.rows import LedgerRow
    from .tooling import RunContext, Tool, tool

__all__ = [
    "Abstained",
    "ApprovalRequired",
    "Attempt",
    "AttemptMade",
    "AuthenticationFailed",
    "Brain",
    "BrainError",
    "BrainProtocolError",
    "Budget",
    "BudgetExceeded",
    "ChatModel",
    "Cleaned",
    "Cleaner",
    "CleaningReport",
    "ConfigurationError",
    "Context",
    "ContextError",
    "ContextOverflow",
    "Cost",
    "CostLimit",
    "Done",
    "EndpointRefused",
    "EndpointUnavailable",
    "InvalidOutput",
    "InvalidToolCall",
    "JournalCorrupt",
    "JournalError",
    "Ledger",
    "LedgerError",
    "LedgerRow",
    "MemorySessions",
    "Message",
    "MissingKey",
    "MissingRuntime",
    "ModelError",
    "ModelRequest",
    "ModelResponse",
    "ModelTimeout",
    "OpenAIModel",
    "Outcome",
    "PendingApproval",
    "Plan",
    "PlanMade",
    "PlanStep",
    "PlanTree",
    "Planner",
    "Price",
    "PriceBook",
    "PriceEntry",
    "PriceError",
    "PromptError",
    "RateLimited",
    "RepeatLimit",
    "RequestRejected",
    "Reservation",
    "RunBusy",
    "RunContext",
    "RunEvent",
    "RunResult",
    "RunStopped",
    "RunTaken",
    "RunTimeout",
    "RunUncertain",
    "Savings",
    "SchemaChanged",
    "Sending",
    "SessionError",
    "Sessions",
    "SqliteSessions",
    "StepReused",
    "TextDelta",
    "TokenUsage",
    "Tool",
    "ToolAnswered",
    "ToolCall",
    "ToolCalled",
    "ToolSchema",
    "Turn",
    "TurnLimit",
    "UnknownModel",
    "UnknownRun",
    "UnpricedModel",
    "Usage",
    "Verdict",
    "WireAttempt",
    "tool",
]

_HOMES = {
    name: module
    for module, names_there in {
        "specialists": "Attempt Cost Outcome Verdict",
        ".agent": "Brain",
        ".errors": (
            "Abstained ApprovalRequired AuthenticationFailed BrainError BrainProtocolError BudgetExceeded "
            "ConfigurationError ContextError ContextOverflow CostLimit EndpointRefused EndpointUnavailable "
            "InvalidOutput InvalidToolCall JournalCorrupt JournalError LedgerError MissingKey MissingRuntime "
            "ModelError ModelTimeout PriceError PromptError RateLimited RepeatLimit RequestRejected RunBusy "
            "RunStopped RunTaken RunTimeout RunUncertain SchemaChanged SessionError TurnLimit UnknownModel "
            "UnknownRun UnpricedModel"
        ),
        ".events": (
            "AttemptMade ChatModel Done Message ModelRequest ModelResponse PendingApproval Plan PlanMade PlanStep "
            "RunEvent Sending StepReused TextDelta TokenUsage ToolAnswered ToolCall ToolCalled ToolSchema Turn "
            "WireAttempt"
        ),
        ".budgets": "Budget",
        ".cleaning": "Cleaned Cleaner CleaningReport",
        ".context": "Context",
        ".conversations": "MemorySessions Sessions SqliteSessions",
        ".ledger": "Ledger Reservation",
        ".models": "OpenAIModel",
        ".plan_tree": "PlanTree",
        ".planner": "Planner",
        ".prices": "Price PriceBook PriceEntry",
        ".receipts": "Usage",
        ".results": "RunResult",
        ".savings": "Savings",
        ".storage.rows": "LedgerRow",
        ".tooling": "RunContext Tool tool",
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


logging.getLogger("brain").addHandler(logging.NullHandler())
