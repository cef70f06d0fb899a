"""Everything that can go wrong, as one tree. Every error that ends a run carries what was done until then.

::

    BrainError                        .result: RunResult | None, as far as the run got
    ├── ConfigurationError            the application asked for something that cannot be
    │   ├── UnknownModel              a model name without a provider, or with one we do not know
    │   ├── MissingKey                no API key where one is needed
    │   ├── MissingRuntime            an optional package is not installed; the message names the extra
    │   ├── EndpointRefused           a base URL we will not send a key to
    │   └── NotBuilt                  an argument whose part of the SDK does not exist yet
    ├── PromptError                   an empty prompt, or one that is not text
    ├── ModelError                    the endpoint failed          .wire_attempts
    │   ├── RateLimited               429                          .retry_after (seconds or None)
    │   ├── ModelTimeout              no answer in time
    │   ├── AuthenticationFailed      401, 403
    │   ├── ContextOverflow           the request is longer than the model reads
    │   ├── EndpointUnavailable       refused connection, DNS, TLS, 5xx, open breaker
    │   ├── RequestRejected           any other 4xx: the endpoint will not take this request
    │   └── BrainProtocolError        an answer that is not chat completions
    ├── RunStopped                    a limit of the run was reached
    │   ├── TurnLimit
    │   ├── RepeatLimit               the same call again and again
    │   ├── CostLimit
    │   ├── BudgetExceeded            a budget had no room left
    │   └── RunTimeout                the deadline of the whole run passed
    ├── ApprovalRequired              a tool waits for a person       .pending
    ├── InvalidToolCall               unknown tool or wrong arguments, also after one repair round
    ├── InvalidOutput                 the final answer does not fit output_type
    └── Abstained                     nothing fits, or no rung's answer was accepted; .reason says why
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .events import PendingApproval, WireAttempt
    from .results import RunResult

__all__ = [
    "Abstained",
    "ApprovalRequired",
    "AuthenticationFailed",
    "BrainError",
    "BrainProtocolError",
    "BudgetExceeded",
    "ConfigurationError",
    "ContextOverflow",
    "CostLimit",
    "EndpointRefused",
    "EndpointUnavailable",
    "InvalidOutput",
    "InvalidToolCall",
    "MissingKey",
    "MissingRuntime",
    "ModelError",
    "ModelTimeout",
    "NotBuilt",
    "PromptError",
    "RateLimited",
    "RepeatLimit",
    "RequestRejected",
    "RunStopped",
    "RunTimeout",
    "TurnLimit",
    "UnknownModel",
]


class BrainError(Exception):
    """The root. ``result`` is the run as far as it got, or ``None`` when it never began."""

    result: RunResult[Any] | None = None


class ConfigurationError(BrainError):
    """The application asked for something that cannot be; the message names the remedy."""


class UnknownModel(ConfigurationError):
    """A model name without a provider, or with an unknown one."""


class MissingKey(ConfigurationError):
    """No API key was given and none is in the environment."""


class MissingRuntime(ConfigurationError):
    """An optional package is not installed."""


class EndpointRefused(ConfigurationError):
    """A base URL, a redirect or an address that a key is never sent to."""


class NotBuilt(ConfigurationError):
    """The argument belongs to a part of the SDK that does not exist yet; it is refused, never ignored."""


class PromptError(BrainError):
    """The prompt is empty or is not text that can be written as UTF-8."""


class ModelError(BrainError):
    """A chat model's endpoint failed. ``wire_attempts`` are the tries that ended in this error."""

    def __init__(self, message: str, *, wire_attempts: Sequence[WireAttempt] = ()) -> None:
        super().__init__(message)
        self.wire_attempts = tuple(wire_attempts)


class RateLimited(ModelError):
    """HTTP 429. ``retry_after`` is what the endpoint asked for, in seconds, or ``None``."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, wire_attempts: Sequence[WireAttempt] = ()
    ) -> None:
        super().__init__(message, wire_attempts=wire_attempts)
        self.retry_after = retry_after


class ModelTimeout(ModelError):
    """The endpoint did not answer, or stopped answering, within its time."""


class AuthenticationFailed(ModelError):
    """HTTP 401 or 403: the key is missing, wrong or not allowed this model."""


class ContextOverflow(ModelError):
    """The request is longer than the model reads."""


class EndpointUnavailable(ModelError):
    """The endpoint cannot be reached, answers 5xx, or was given a rest by the breaker."""


class RequestRejected(ModelError):
    """Another 4xx: asking again in the same words will not help."""


class BrainProtocolError(ModelError):
    """The endpoint's answer is not a chat completion: broken JSON, too large, cut short, absurd."""


class RunStopped(BrainError):
    """A limit of the run was reached; ``result`` holds what was done until then."""


class TurnLimit(RunStopped):
    """The model wanted more turns than the run allows."""


class RepeatLimit(RunStopped):
    """The model made the same call with the same arguments again and again."""


class CostLimit(RunStopped):
    """The run has spent what it may spend."""


class BudgetExceeded(RunStopped):
    """A budget had no room for what was about to be sent."""


class RunTimeout(RunStopped):
    """The one deadline of the whole run passed."""


class ApprovalRequired(BrainError):
    """A tool that needs a person's approval was called.

    Resume with ``run(history=error.result.messages, approvals={pending.id: True})``; ``False`` denies the call.
    """

    def __init__(self, message: str, *, pending: Sequence[PendingApproval] = ()) -> None:
        super().__init__(message)
        self.pending = tuple(pending)


class InvalidToolCall(BrainError):
    """The model called a tool that does not exist, or with wrong arguments, also after it was told so."""


class InvalidOutput(BrainError):
    """The final answer does not fit ``output_type``, also after the model was told so."""


class Abstained(BrainError):
    """No answer was good enough to give. ``reason`` is one sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
