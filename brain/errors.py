"""Everything that can go wrong, as one tree. Every error that ends a run carries what was done until then.

::

    BrainError                        .result: RunResult | None, as far as the run got
    ├── ConfigurationError            the application asked for something that cannot be
    │   ├── UnknownModel              a model name without a provider, or with one we do not know
    │   ├── MissingKey                no API key where one is needed
    │   ├── MissingRuntime            an optional package is not installed; the message names the extra
    │   ├── EndpointRefused           a base URL we will not send a key to
    │   ├── PriceError                a price book, or a price in it, that cannot be right
    │   └── UnpricedModel             a budget of money, and a model that nobody knows the price of
    ├── PromptError                   an empty prompt, or one that is not text
    │   └── ContextError              a history that cannot be shown: calls without results, or larger than the window
    ├── SessionError                  a session cannot be read or appended to   .problem
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
    │   ├── BudgetExceeded            a budget had no room left    .budget, .unit, .limit, .spent, .asked
    │   └── RunTimeout                the deadline of the whole run passed
    ├── JournalError                  a run cannot be taken up
    │   ├── RunBusy                   another process executes it
    │   ├── RunTaken                  its id belongs to another tenant, or to another request
    │   ├── UnknownRun                there is no run of this id
    │   ├── SchemaChanged             a tool is not what it was when the run was begun
    │   └── RunUncertain              a step may have happened; a person decides    .pending
    ├── ApprovalRequired              a tool waits for a person       .pending
    ├── InvalidToolCall               unknown tool or wrong arguments, also after one repair round
    ├── InvalidOutput                 the final answer does not fit output_type
    ├── LedgerError                   the ledger's file cannot be used or written; the message names the remedy
    │   └── JournalCorrupt            the file is damaged, or somebody changed it
    └── Abstained                     nothing fits, or no rung's answer was accepted; .reason says why
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

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
    "ContextError",
    "ContextOverflow",
    "CostLimit",
    "EndpointRefused",
    "EndpointUnavailable",
    "InvalidOutput",
    "InvalidToolCall",
    "JournalCorrupt",
    "JournalError",
    "LedgerError",
    "MissingKey",
    "MissingRuntime",
    "ModelError",
    "ModelTimeout",
    "PriceError",
    "PromptError",
    "RateLimited",
    "RepeatLimit",
    "RequestRejected",
    "RunBusy",
    "RunStopped",
    "RunTaken",
    "RunTimeout",
    "RunUncertain",
    "SchemaChanged",
    "SessionError",
    "TurnLimit",
    "UnknownModel",
    "UnknownRun",
    "UnpricedModel",
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


class PriceError(ConfigurationError):
    """A price book, or a price in it, that cannot be right; the message names the file, the entry and the remedy."""


class PromptError(BrainError):
    """The prompt is empty or is not text that can be written as UTF-8."""


class ContextError(PromptError):
    """A history that cannot be shown to a model: a call without its result, a result without its call, or what must
    always be there is larger than the window. ``index``: the message of the history, from 0, where it is one."""

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class SessionError(BrainError):
    """A session cannot be read or appended to.

    ``problem``: ``"taken"`` (it belongs to another tenant), ``"changed"`` (it holds other messages than was expected:
    another run has appended meanwhile, so read it again) or ``"unusable"`` (its file cannot be used, or what it holds
    is not what was written).
    """

    def __init__(self, message: str, *, problem: Literal["taken", "changed", "unusable"] = "unusable") -> None:
        super().__init__(message)
        self.problem = problem


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
    """A budget had no room for what was about to be sent, so it was not sent.

    ``budget``: its name. ``unit``: ``usd``, ``seconds`` or ``calls``. ``limit``: what it allows; ``spent``: what it
    bears, reservations in flight included; ``asked``: the most that was to be sent next could have taken.
    """

    def __init__(
        self,
        message: str,
        *,
        budget: str = "",
        unit: str = "",
        limit: Decimal | int = 0,
        spent: Decimal | int = 0,
        asked: Decimal | int = 0,
    ) -> None:
        super().__init__(message)
        self.budget = budget
        self.unit = unit
        self.limit = limit
        self.spent = spent
        self.asked = asked

    @classmethod
    def of(
        cls, budget: str, unit: str, limit: Decimal | int, spent: Decimal | int, asked: Decimal | int
    ) -> BudgetExceeded:
        """The error with its sentence."""
        form = {"usd": "${:f}", "seconds": "{:f} s"}.get(unit, "{} calls")
        allowed, borne, wanted = (form.format(each) for each in (limit, spent, asked))
        message = (
            f"{budget} allows {allowed}, {borne} of it are spent or set aside, and the next attempt may take"
            f" {wanted}; it was not made"
        )
        return cls(message, budget=budget, unit=unit, limit=limit, spent=spent, asked=asked)

    def __reduce__(self) -> tuple[Any, ...]:
        return _budget_exceeded, (str(self), self.budget, self.unit, self.limit, self.spent, self.asked)


class RunTimeout(RunStopped):
    """The one deadline of the whole run passed."""


class UnpricedModel(ConfigurationError):
    """A budget of money cannot hold for a model whose price nobody knows; give it a price, or the budget a ceiling."""


class JournalError(BrainError):
    """A run cannot be begun or taken up under this id."""


class RunBusy(JournalError):
    """Another process executes the run, or has taken it up from this one."""


class RunTaken(JournalError):
    """The run's id belongs to another tenant, or to a run that was asked something else."""


class UnknownRun(JournalError):
    """The journal has no run of this id."""


class SchemaChanged(JournalError):
    """A tool that the run was offered, or has called, is no longer what it was."""


class RunUncertain(JournalError):
    """The run was cut off while a call was made that must not be made twice, and nobody knows whether it was.

    ``pending``: those calls. Look whether they took effect, and resume with
    ``run(run_id=..., approvals={id: True})`` to make the call (again), or ``False`` to go on without it.
    """

    def __init__(self, message: str, *, pending: Sequence[PendingApproval] = ()) -> None:
        super().__init__(message)
        self.pending = tuple(pending)


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


class LedgerError(BrainError):
    """The ledger's file cannot be used or written; the message names the remedy."""


class JournalCorrupt(LedgerError):
    """The ledger's file is damaged, or is not what its schema says; nothing that it holds is used."""


class Abstained(BrainError):
    """No answer was good enough to give. ``reason`` is one sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _budget_exceeded(
    message: str, budget: str, unit: str, limit: Decimal | int, spent: Decimal | int, asked: Decimal | int
) -> BudgetExceeded:
    return BudgetExceeded(message, budget=budget, unit=unit, limit=limit, spent=spent, asked=asked)
