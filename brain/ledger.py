"""The ledger: every attempt with its price, in a SQLite file or in memory, and what may still be spent.

Amounts are exact sums of what the rows say; what is not known lies between two bounds, or is unpriced. A file is also
the journal of runs (:mod:`brain.journal`). How things are kept is in :mod:`brain.storage`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from specialists import Cost

from .budgets import Budget, Scope, allowances, check_shared
from .errors import ConfigurationError, UnknownRun
from .storage.changes import Allowance, Release, Reserve, RunRow, Settle, Spent, StepRow, Store, Sum, SumBy
from .storage.rows import LedgerRow
from .storage.sqlite_store import KEPT_IN_MEMORY, SqliteStore

__all__ = ["Ledger", "Reservation"]

MOST = 10**12
"""Calls, and seconds, beyond which a number is a mistake."""


class Ledger:
    """Where brains write down what they spend, and what their budgets are held by.

    ``Ledger()`` is in memory: it ends with the process, and serves this process only. ``Ledger("bill.db")`` is a
    SQLite file, made when it is first used (its folder is not), for as many threads and processes of this machine as
    like; with it, runs can be resumed after a crash. Not for a network's file system: SQLite's locks do not hold there,
    so it is refused.

    Args:
        path: The file.
        durable: Wait for the disk at every step, so that what is kept survives a loss of power too, and not only the
            death of a process.
        keep: Rows that a ledger in memory keeps singly, the newest; of those before, :attr:`forgotten` has the number
            and the exact sum. A file keeps all.
        store: A store of your own (:class:`brain.storage.changes.Store`) in place of SQLite;
            :func:`brain.testing.check_store` sees that it keeps its promises.

    What is asked of it raises :class:`LedgerError` where the file cannot be used, and :class:`JournalCorrupt` where it
    is damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        durable: bool = False,
        keep: int = KEPT_IN_MEMORY,
        store: Store | None = None,
    ) -> None:
        if store is not None and path is not None:
            raise ConfigurationError("a ledger has a path or a store of its own, not both")
        if path is not None and (not isinstance(path, str | os.PathLike) or not os.fspath(path)):
            raise ConfigurationError(f"a ledger's path is that of a file, not {path!r}")
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ConfigurationError(f"keep is a number of rows from 1 on, not {keep!r}")
        self.store: Store = SqliteStore(path, durable=durable, keep=keep) if store is None else store
        self.path = None if path is None else os.path.abspath(path)

    def __repr__(self) -> str:
        return "Ledger()" if self.path is None else f"Ledger({self.path!r})"

    @property
    def shared(self) -> bool:
        """Whether other processes see it, so that budgets and runs may span them."""
        return self.store.shared

    def rows(self, **where: str | None) -> list[LedgerRow]:
        """The rows in the order in which they were begun: ``rows(run="...")``, ``rows(tenant="a", kind="model")``."""
        return self.store.rows(**where)

    def total(self, **where: str | None) -> Cost:
        """The exact sum of the rows: ``total(tenant="a")``; without ``where`` with all that is :attr:`forgotten`."""
        sums = self.store.sums("all", **where)
        costs = [each.cost for each in sums]
        if not where:
            costs.append(self.forgotten[1])
        return Cost.total(costs)

    @property
    def forgotten(self) -> tuple[int, Cost]:
        """How many attempts a ledger in memory no longer keeps singly, and the exact sum of their costs."""
        found: tuple[int, Cost] = getattr(self.store, "forgotten", (0, Cost.exact(0)))
        return found

    def sums(self, by: SumBy, **where: str | None) -> list[Sum]:
        """The rows added up by run, call, model, specialist, session, tenant, day (UTC) or kind."""
        return self.store.sums(by, **where)

    def spent(self) -> list[Spent]:
        """What each account of a budget bears: at most what was spent, and all reservations in flight."""
        return self.store.spent()

    def runs(self, tenant: str | None = None, status: str | None = None) -> list[RunRow]:
        """The runs in the journal, the latest first."""
        return self.store.runs(tenant, status)

    def run(self, id: str) -> RunRow:
        """A run in the journal. Raises :class:`UnknownRun`."""
        found = self.store.run(id)
        if found is None:
            raise UnknownRun(f"the journal knows no run {id!r}; `brain runs list` shows those it knows")
        return found

    def steps(self, run: str) -> list[StepRow]:
        """The steps of a run, in the order in which they were begun."""
        return self.store.steps(run)

    def is_alive(self, owner: str | None) -> bool:
        """Whether the process that has a run or an attempt in flight lives."""
        return owner is not None and self.store.is_alive(owner)

    async def reserve(self, budget: Budget | Sequence[Budget], **what: Any) -> Reservation:
        """Set aside what an attempt of your own can take at most, before it is made.

        Args:
            budget: The budget that it is spent from, or several; it needs room in each, and in all that they are
                within.
            usd: US dollars: a Decimal, an int or a string of digits.
            seconds: Wall time.
            calls: How many calls it is, by default 1.
            name: What it is called in the ledger.
            run: Its run; by default one of its own.
            session: Its session, for a budget per session.
            tenant: Its tenant, for a budget per tenant.

        Raises :class:`BudgetExceeded` where there is no room; nothing is then set aside anywhere. Raises
        :class:`ConfigurationError` for less than nothing, and for a budget that this ledger cannot hold.
        """
        reservation, future = self._reserve(budget, **what)
        try:
            await _kept(future)
        except asyncio.CancelledError:
            self.store.apply([Release(reservation.id)])
            raise
        return reservation

    def reserve_sync(self, budget: Budget | Sequence[Budget], **what: Any) -> Reservation:
        """:meth:`reserve` for callers without an event loop."""
        reservation, future = self._reserve(budget, **what)
        future.result()
        return reservation

    def _reserve(
        self,
        budget: Budget | Sequence[Budget],
        *,
        usd: Decimal | int | str = 0,
        seconds: float = 0.0,
        calls: int = 1,
        name: str = "reserved by hand",
        run: str | None = None,
        session: str | None = None,
        tenant: str | None = None,
    ) -> tuple[Reservation, Future[list[Any]]]:
        budgets = (budget,) if isinstance(budget, Budget) else tuple(budget)
        most = _amount(usd)
        if isinstance(calls, bool) or not isinstance(calls, int) or not 0 <= calls < MOST:
            raise ConfigurationError(f"calls are a whole number from 0 on, not {calls!r}")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < MOST:
            raise ConfigurationError(f"seconds are a finite number of zero or more, not {seconds!r}")
        id = os.urandom(16).hex()
        scope = Scope(run or id, session, tenant)
        self.check_budgets(budgets)
        for each in budgets:
            each.hold(getattr(self.store, "identity", None), shared=self.shared)
        row = LedgerRow(
            id,
            "function",
            name,
            run=scope.run,
            session=session,
            tenant=tenant,
            cost=Cost.bounded(0, most),
            owner=self.store.claim() if self.shared else None,
        )
        allowed = allowances(budgets, scope)
        change = Reserve(row, allowed, most, round(seconds * 1_000_000), calls)
        return Reservation(self, row, allowed), self.store.apply([change])

    def check_budgets(self, budgets: Sequence[Budget]) -> None:
        """Raises :class:`ConfigurationError` for budgets that span processes, where this ledger does not."""
        check_shared(budgets, self.shared)

    def reconcile(self, attempt: str, usd: Decimal | int | str) -> None:
        """Settle an attempt at what it is known to have cost, from the provider's bill for one.

        For rows whose cost is not exact: cut streams, timeouts, attempts of processes that died. ``attempt``: the
        row's id. Raises ``LookupError`` for an id that the ledger does not have.
        """
        found = self.store.rows(id=attempt)
        if not found:
            raise LookupError(f"the ledger has no attempt {attempt!r}")
        row = replace(found[0], cost=Cost.exact(_amount(usd)), outcome=found[0].outcome or "lost")
        self.store.apply([Settle(row)]).result()

    def close(self) -> None:
        """Wait until everything is written, and let go of the file; the next use opens it again.

        A ledger in memory keeps what it has: budgets that it holds would be full again.
        """
        if self.shared:
            self.store.close()

    async def aclose(self) -> None:
        """:meth:`close` without holding the event loop up."""
        await asyncio.to_thread(self.close)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was set aside for one attempt. Settle it when the attempt has ended; until then it counts in full."""

    ledger: Ledger
    row: LedgerRow
    allowances: tuple[Allowance, ...] = ()

    @property
    def id(self) -> str:
        """The row's id."""
        return self.row.id

    async def settle(
        self, usd: Decimal | int | str, *, outcome: str = "answered", seconds: float | None = None
    ) -> None:
        """The attempt has ended and cost ``usd``."""
        await _kept(self._settle(usd, outcome, seconds))

    def settle_sync(self, usd: Decimal | int | str, *, outcome: str = "answered", seconds: float | None = None) -> None:
        """:meth:`settle` for callers without an event loop."""
        self._settle(usd, outcome, seconds).result()

    async def release(self) -> None:
        """The attempt was not made after all."""
        await _kept(self.ledger.store.apply([Release(self.id)]))

    def release_sync(self) -> None:
        """:meth:`release` for callers without an event loop."""
        self.ledger.store.apply([Release(self.id)]).result()

    def _settle(self, usd: Decimal | int | str, outcome: str, seconds: float | None) -> Future[list[Any]]:
        row = replace(self.row, cost=Cost.exact(_amount(usd)), outcome=outcome, seconds=seconds)
        # Also after a release, which said that there was nothing to settle: the accounts bear what was spent.
        return self.ledger.store.apply([Settle(row, allowances=self.allowances)])


def _amount(usd: Decimal | int | str) -> Decimal:
    try:
        return Cost.exact(usd).low
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"usd is no amount: {error}") from None


async def _kept(future: Future[list[Any]]) -> None:
    if future.done():
        future.result()
    else:
        await asyncio.shield(asyncio.wrap_future(future))
