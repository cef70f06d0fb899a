"""A general model that plans and calls small specialist models, with every answer checked and every attempt priced.

::

    from brain import Brain

    brain = Brain(specialists=["sudoku", "intent"])      # no key, no network: the built-in planner
    result = brain.run_sync("Route this message: 'I lost my card'")
    print(result.output, result.usage, sep="\\n")
"""

from __future__ import annotations

import logging

import specialists as _specialists

if getattr(_specialists, "DISTRIBUTION", None) != "brain-specialists":
    raise ImportError(
        "the package 'specialists' found at"
        f" {next(iter(getattr(_specialists, '__path__', ())), None) or getattr(_specialists, '__file__', '?')!r} is not"
        " the one that brain needs: remove or rename it, then pip install brain-specialists"
    )

from specialists import Attempt, Cost, Outcome, Verdict

from .agent import Brain
from .errors import (
    Abstained,
    ApprovalRequired,
    AuthenticationFailed,
    BrainError,
    BrainProtocolError,
    BudgetExceeded,
    ConfigurationError,
    ContextOverflow,
    CostLimit,
    EndpointRefused,
    EndpointUnavailable,
    InvalidOutput,
    InvalidToolCall,
    MissingKey,
    MissingRuntime,
    ModelError,
    ModelTimeout,
    NotBuilt,
    PromptError,
    RateLimited,
    RepeatLimit,
    RequestRejected,
    RunStopped,
    RunTimeout,
    TurnLimit,
    UnknownModel,
)
from .events import (
    AttemptMade,
    ChatModel,
    Done,
    Message,
    ModelRequest,
    ModelResponse,
    PendingApproval,
    RunEvent,
    TextDelta,
    TokenUsage,
    ToolAnswered,
    ToolCall,
    ToolCalled,
    ToolSchema,
    Turn,
    WireAttempt,
)
from .ledger import Usage
from .models import OpenAIModel
from .planner import Planner
from .prices import Price
from .results import RunResult
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
    "BudgetExceeded",
    "ChatModel",
    "ConfigurationError",
    "ContextOverflow",
    "Cost",
    "CostLimit",
    "Done",
    "EndpointRefused",
    "EndpointUnavailable",
    "InvalidOutput",
    "InvalidToolCall",
    "Message",
    "MissingKey",
    "MissingRuntime",
    "ModelError",
    "ModelRequest",
    "ModelResponse",
    "ModelTimeout",
    "NotBuilt",
    "OpenAIModel",
    "Outcome",
    "PendingApproval",
    "Planner",
    "Price",
    "PromptError",
    "RateLimited",
    "RepeatLimit",
    "RequestRejected",
    "RunContext",
    "RunEvent",
    "RunResult",
    "RunStopped",
    "RunTimeout",
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
    "Usage",
    "Verdict",
    "WireAttempt",
    "tool",
]

logging.getLogger("brain").addHandler(logging.NullHandler())
