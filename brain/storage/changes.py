"""What can be changed in a store, as plain data: money set aside and settled, steps of a run begun and ended.

A store applies a list of changes as a whole or not at all; that is all that another store has to do. Nothing here is
executed: a change is values. This module knows nothing of SQL or of where a change comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from specialists import Cost

from .rows import LedgerRow

__all__ = [
    "Allowance",
    "Begin",
    "Begun",
    "Change",
    "Commit",
    "Effect",
    "Finish",
    "Intend",
    "Note",
    "Release",
    "Reserve",
    "RunRow",
    "RunStatus",
    "Settle",
    "Spent",
    "StepRow",
    "Store",
    "Sum",
    "SumBy",
]

Effect = Literal["pure", "idempotent", "once"]
RunStatus = Literal["running", "done", "failed", "waiting", "uncertain"]
"""``failed``, ``waiting`` (for a person's approval) and ``uncertain`` can be resumed; so can ``running``, when the
process that ran it has died."""


SumBy = Literal["all", "run", "call", "model", "specialist", "session", "tenant", "day", "kind"]
"""``model``: wire attempts by model asked for; ``specialist``: specialists and functions; ``call``: ``RUN/CALL``."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be spent on one account, all reservations in flight included. ``None``: without a limit.

    ``label`` names it in messages. Times are whole microseconds.
    """

    account: str
    label: str
    usd: Decimal | None = None
    microseconds: int | None = None
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class Reserve:
    """Set aside the most that the attempt ``row`` can cost, on every account, or on none.

    ``usd``, ``calls``: what is needed; without them the change is refused (:class:`brain.errors.BudgetExceeded`).
    ``microseconds``: what is wished; less is granted where less is left, and nothing is refused. The row is written,
    in flight. The id of an attempt that has ended, or of another run's, is refused (:class:`brain.errors.LedgerError`).
    For a row that is in flight already, ``usd`` and ``microseconds`` are what is set aside beside what was.

    Applying it gives the microseconds granted, or ``None`` where no account limits time.
    """

    row: LedgerRow
    allowances: tuple[Allowance, ...] = ()
    usd: Decimal = Decimal(0)
    microseconds: int = 0
    calls: int = 1


@dataclass(frozen=True, slots=True)
class Settle:
    """The attempt ``row`` has ended: its row is written, and its accounts bear what it cost in place of what was set
    aside. ``usd``: what they bear, by default the most that it can have cost; where that is unknown, what was set
    aside. A row that nothing was set aside for is simply written; ``allowances`` then names accounts that bear it, as
    ``calls`` calls. ``instead_of``: the row that was in flight for it under another id. An attempt that has ended is
    settled again only as one that began at the same moment; another of the same id is written under an id of its own.
    """

    row: LedgerRow
    usd: Decimal | None = None
    instead_of: str | None = None
    allowances: tuple[Allowance, ...] = ()
    calls: int = 1


@dataclass(frozen=True, slots=True)
class Release:
    """The attempt of this id was not made after all: its row goes, and with it what was set aside."""

    id: str


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin a run, or take up one that was begun. Applying it gives :class:`Begun`.

    Raises :class:`brain.errors.RunBusy` while a living process has it, :class:`brain.errors.RunTaken` where it is
    another tenant's, :class:`brain.errors.UnknownRun` where there is none and ``create`` is false. ``request``: what
    the run was asked, as JSON; that of a run that was begun before is kept. ``force``: take it from a process that
    lives; what that process still writes for it is refused.
    """

    run: str
    tenant: str | None
    request: Mapping[str, Any]
    session: str | None = None
    parent_run: str | None = None
    salt: str = ""
    owner: str = ""
    create: bool = True
    force: bool = False


@dataclass(frozen=True, slots=True)
class Intend:
    """The step ``step`` is about to be executed: nothing of it has happened. ``fence``: from :class:`Begun`.

    Of a step that was intended before, ``times`` is counted up. Raises :class:`brain.errors.RunBusy` where the run was
    taken up by another process since.
    """

    run: str
    fence: int
    step: str
    name: str
    effect: Effect
    key: str
    arguments: Mapping[str, Any] | None = None
    schema: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """The step has happened; ``result`` (JSON) is what a resumed run takes in place of executing it.

    Raises :class:`brain.errors.RunBusy` as :class:`Intend` does, and for a step that was committed before.
    """

    run: str
    fence: int
    step: str
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finish:
    """This process is done with the run. ``result`` (JSON): what a run that is done gives back."""

    run: str
    fence: int
    status: RunStatus
    reason: str | None = None
    result: Mapping[str, Any] | None = None


Change: TypeAlias = Reserve | Settle | Release | Begin | Intend | Commit | Finish


class Note(NamedTuple):
    """An attempt that has ended, to be described (a :class:`Settle`) when somebody looks.

    ``make`` describes it from ``ended``; ``cost``: its price."""

    make: Callable[[Any], Change]
    ended: tuple[Any, ...]
    cost: Cost

    def change(self) -> Change:
        """The description."""
        return self.make(self.ended)


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in the journal."""

    id: str
    tenant: str | None
    session: str | None
    parent_run: str | None
    status: RunStatus
    fence: int
    owner: str | None
    begun: str
    ended: str | None
    reason: str | None
    salt: str
    request: Mapping[str, Any]
    result: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step in the journal; ``result`` is ``None`` until it is committed. ``times``: how often it was begun."""

    run: str
    step: str
    name: str
    effect: Effect
    key: str
    arguments: Mapping[str, Any] | None
    schema: str | None
    times: int
    begun: str
    ended: str | None
    result: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that this process has: its row, its steps by name, and whether it was begun before."""

    run: RunRow
    steps: Mapping[str, StepRow]
    resumed: bool


@dataclass(frozen=True, slots=True)
class Spent:
    """What an account bears: settled attempts at the most they can have cost, and all reservations in flight."""

    account: str
    label: str
    usd: Decimal
    microseconds: int
    calls: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Rows added up under one ``key`` (``None``: rows without one). Sums of tokens are of those that are known.

    ``unpriced``: rows without a price; ``in_flight``: rows that have not ended, their reservations being in the cost.
    """

    key: str | None
    rows: int
    cost: Cost
    unpriced: int
    in_flight: int
    seconds: float
    cpu_seconds: float
    input: int | None
    output: int | None
    cache_read: int | None
    cache_write: int | None
    reasoning: int | None


class Store(Protocol):
    """Where rows, accounts and steps are kept. Safe from any thread and event loop.

    ``shared``: whether other processes see it, so that budgets and runs may span them.
    """

    @property
    def shared(self) -> bool: ...

    def apply(self, changes: Sequence[Change]) -> Future[list[Any]]:
        """Apply ``changes`` in order, as a whole or not at all; what each gives is in the list.

        Lists that are handed over one after the other from one thread are applied in that order. The future is done
        when they are kept. It raises what the changes say, and :class:`brain.errors.LedgerError` where they cannot be
        kept. Nobody has to wait for it.
        """
        ...

    def note(self, notes: Sequence[Note]) -> None:
        """Keep what is described by ``notes``. Only asked of a store that is not ``shared``."""
        ...

    def claim(self) -> str:
        """This process's token, for :class:`Begin`: as long as the process lives, nobody else begins what it has."""
        ...

    def rows(self, **where: str | None) -> list[LedgerRow]:
        """Rows in the order in which they were begun; ``where``: columns and what they are."""
        ...

    def sums(self, by: SumBy, **where: str | None) -> list[Sum]:
        """Rows added up by ``by``, in the order of their first rows. Every digit is kept."""
        ...

    def spent(self) -> list[Spent]:
        """Every account."""
        ...

    def runs(self, tenant: str | None = None, status: str | None = None) -> list[RunRow]:
        """Runs, the latest first."""
        ...

    def run(self, id: str) -> RunRow | None: ...

    def steps(self, run: str) -> list[StepRow]:
        """In the order in which they were begun."""
        ...

    def is_alive(self, owner: str) -> bool:
        """Whether the process that has this token lives."""
        ...

    def close(self) -> None:
        """Wait until all is kept, and let go."""
        ...
