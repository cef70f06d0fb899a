"""Budgets: how much money, time and how many calls may be spent, by whom, and within which larger budget.

A budget is a declaration; what was spent stands on accounts in the ledger, and many budgets may look at one account.
This module knows nothing of runs, models or stores.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args

from .errors import ConfigurationError
from .storage.changes import Allowance

__all__ = ["Budget", "Scope", "allowances", "check_shared", "merged"]

Per = Literal["run", "session", "tenant"]
Window = Literal["hour", "day", "month"]
_FORMATS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}

MOST_DIGITS = 1000
"""Digits before and after the point that an amount is written with."""
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose spending it is."""

    run: str
    session: str | None = None
    tenant: str | None = None


class _Home:
    """The one ledger that holds a purse: known from the first use on."""

    __slots__ = ("ledger", "pid")
    _lock = threading.Lock()

    def __init__(self, pid: int, ledger: str | None = None) -> None:
        self.pid = pid
        self.ledger = ledger

    def hold(self, ledger: str, *, shared: bool) -> None:
        """See that nobody else holds it. Raises :class:`ConfigurationError`."""
        if not shared and self.pid != os.getpid():
            raise ConfigurationError(
                "a budget that was made in another process is not held by a ledger in memory, where every process would"
                " have an allowance of its own; give the brain a file (ledger='bill.db'), or make the budget here"
            )
        with self._lock:
            if self.ledger is None:
                self.ledger = ledger
        if self.ledger != ledger:
            raise ConfigurationError(
                "one budget is one purse, and another ledger holds it; give every brain that spends from it the same"
                " ledger (ledger=Ledger()), or a budget of its own"
            )

    def __copy__(self) -> _Home:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> _Home:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _Home, (self.pid, self.ledger)


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """The most that may be spent. ``Budget(usd="0.50")``, ``Budget(calls=10)``, ``Budget(usd=100, per="tenant",
    window="day")``.

    One object is one purse: whoever is given it spends from it, one run or a hundred, and all of them from one ledger.
    With ``per`` every run, session
    or tenant has a purse of its own. With ``window`` it is full again with every hour, day or month (UTC), or every
    so many seconds of a ``timedelta``. With ``name`` every process that uses the same ledger and declares a budget of
    this name spends from the same purse.

    Args:
        usd: US dollars: a Decimal, an int or a string of digits; never a float. Before anything is sent, the most
            that it can cost must have room.
        seconds: Wall time of attempts, added up: requests to models, specialists, functions. An attempt is given no
            more time than is left.
        calls: Attempts: each request that is sent (retries too), each run of a specialist, each call of a function.
        per: ``"run"``, ``"session"`` or ``"tenant"``.
        window: ``"hour"``, ``"day"``, ``"month"`` or a ``timedelta``.
        name: Shared by name.
        within: The budget that this one is a part of. What is spent here is spent there too, and needs room in both.
        ceiling: US dollars that one request to a model without a known price is taken to cost at most; without it a
            budget of money refuses such a model.

    Raises:
        ConfigurationError: for an amount that is negative, not finite or a float, for a budget without any limit, and
            for one that is within itself.
    """

    usd: Decimal | None
    seconds: Decimal | None
    calls: int | None
    per: Per | None
    window: Window | timedelta | None
    name: str | None
    within: Budget | None
    ceiling: Decimal | None
    purse: str = field(repr=False, compare=False)
    """What the account of an unnamed budget is called."""
    home: _Home = field(repr=False, compare=False)

    def __init__(
        self,
        usd: Decimal | int | str | None = None,
        seconds: Decimal | float | None = None,
        calls: int | None = None,
        *,
        per: Per | None = None,
        window: Window | timedelta | None = None,
        name: str | None = None,
        within: Budget | None = None,
        ceiling: Decimal | int | str | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "usd": None if usd is None else _money("usd", usd),
            "seconds": None if seconds is None else _seconds(seconds),
            "calls": calls,
            "per": per,
            "window": window,
            "name": name,
            "within": within,
            "ceiling": None if ceiling is None else _money("ceiling", ceiling),
            "purse": os.urandom(12).hex(),
            "home": _Home(os.getpid()),
        }
        if calls is not None and (isinstance(calls, bool) or not isinstance(calls, int) or calls < 0):
            raise ConfigurationError(f"a budget's calls are a whole number from 0 on, not {calls!r}")
        if usd is None and seconds is None and calls is None:
            raise ConfigurationError("a budget limits something: give it usd, seconds or calls")
        if per is not None and per not in get_args(Per):
            raise ConfigurationError(f"a budget is per 'run', 'session' or 'tenant', not {per!r}")
        if isinstance(window, timedelta):
            if window < timedelta(seconds=1):
                raise ConfigurationError(f"a budget's window is a second long or longer, not {window}")
        elif window is not None and window not in get_args(Window):
            raise ConfigurationError(f"a budget's window is 'hour', 'day', 'month' or a timedelta, not {window!r}")
        if name is not None and (not isinstance(name, str) or not name or not name.isprintable() or len(name) > 200):
            raise ConfigurationError(f"a budget's name is a printable text of up to 200 characters, not {name!r}")
        if within is not None and not isinstance(within, Budget):
            raise ConfigurationError(f"a budget is within another Budget, not {within!r}")
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def spans_processes(self) -> bool:
        """Whether it is meant to hold over processes, so that it needs a ledger that they share."""
        return self.per == "tenant" or self.window is not None or self.name is not None

    def hold(self, ledger: str | None, *, shared: bool) -> None:
        """See that no other ledger holds this purse, or one that it is within: each would have the whole allowance.

        ``ledger``: what tells it from others; ``None``: nobody knows. Raises :class:`ConfigurationError`.
        """
        for each in self.chain():
            if ledger is not None and each.name is None and each.per is None:
                each.home.hold(ledger, shared=shared)

    def chain(self) -> Iterator[Budget]:
        """This budget and those it is within."""
        budget: Budget | None = self
        while budget is not None:
            yield budget
            budget = budget.within

    def allowance(self, scope: Scope, at: datetime | None = None) -> Allowance:
        """What this budget, without those it is within, allows in ``scope`` at the moment ``at`` (UTC).

        Raises :class:`ConfigurationError` for a budget per session or tenant where there is none.
        """
        parts, label = ["budget" if self.name is not None else "purse"], "the budget"
        # Texts of other people's are fenced by their lengths, so that no two accounts have one name.
        if self.name is not None:
            parts.append(f"{len(self.name)}:{self.name}")
            label = f"the budget {self.name!r}"
        elif self.per is None or self.per == "run":
            parts.append(self.purse)
        if self.per is not None:
            whose = {"run": scope.run, "session": scope.session, "tenant": scope.tenant}[self.per]
            if whose is None:
                raise ConfigurationError(f"a budget is per {self.per}, and the run has none; pass run({self.per}=...)")
            owner = f"{len(scope.tenant)}:{scope.tenant}/" if self.per == "session" and scope.tenant is not None else ""
            parts.append(f"{self.per}={owner}{len(whose)}:{whose}")
            label += f" of the {self.per} {whose!r}"
        if self.window is not None:
            span, called = _window(self.window, at or datetime.now(UTC))
            parts.append(f"window={span}")
            label += f" {called}"
        if self.usd is not None and label == "the budget":
            label = f"the budget of ${self.usd:f}"
        microseconds = None if self.seconds is None else int(self.seconds * 1_000_000)
        return Allowance("|".join(parts), label, self.usd, microseconds, self.calls)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, with which a resumed run finds its purse again."""
        return {
            "usd": None if self.usd is None else str(self.usd),
            "seconds": None if self.seconds is None else str(self.seconds),
            "calls": self.calls,
            "per": self.per,
            "window": self.window.total_seconds() if isinstance(self.window, timedelta) else self.window,
            "name": self.name,
            "within": None if self.within is None else self.within.to_json(),
            "ceiling": None if self.ceiling is None else str(self.ceiling),
            "purse": self.purse,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Budget:
        """The inverse of :meth:`to_json`. Raises :class:`ConfigurationError` for what is no budget."""
        try:
            given = dict(data)
            purse = given.pop("purse")
            if isinstance(given["window"], int | float):
                given["window"] = timedelta(seconds=given["window"])
            if given["within"] is not None:
                given["within"] = cls.from_json(given["within"])
            if given["seconds"] is not None:
                given["seconds"] = Decimal(given["seconds"])
            if not isinstance(purse, str):
                raise TypeError("its purse is no text")
            return cls(**given).with_purse(purse)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise ConfigurationError(f"this is no budget: {error}") from None

    def with_purse(self, purse: str) -> Budget:
        """The same limits on the purse of this name."""
        other = copy.copy(self)
        object.__setattr__(other, "purse", purse)
        return other

    def like(self, earlier: Budget) -> Budget:
        """These limits, on the purses of ``earlier`` (budget for budget, outwards) where they have no name."""
        within = self.within
        if within is not None and earlier.within is not None:
            within = within.like(earlier.within)
        mine = copy.copy(self)
        object.__setattr__(mine, "within", within)
        object.__setattr__(mine, "purse", earlier.purse)
        return mine


def allowances(budgets: Sequence[Budget], scope: Scope, at: datetime | None = None) -> tuple[Allowance, ...]:
    """What ``budgets`` and all they are within allow; an account that several look at stands once, with the least."""
    return merged(each.allowance(scope, at) for budget in budgets for each in budget.chain())


def check_shared(budgets: Iterable[Budget], shared: bool) -> None:
    """See that budgets that span processes have a ledger that processes share. Raises :class:`ConfigurationError`."""
    if not shared and any(each.spans_processes for budget in budgets for each in budget.chain()):
        raise ConfigurationError(
            "a budget that spans processes (per tenant, with a window or a name) needs a ledger that they share, and"
            " this one is in memory; give it a file: ledger='bill.db'"
        )


def merged(allowances: Iterable[Allowance]) -> tuple[Allowance, ...]:
    """Each account once, with the least that any of them allows."""
    found: dict[str, Allowance] = {}
    for allowance in allowances:
        before = found.get(allowance.account)
        found[allowance.account] = allowance if before is None else _least(before, allowance)
    return tuple(found.values())


def _least(one: Allowance, other: Allowance) -> Allowance:
    def least(left: Any, right: Any) -> Any:
        return right if left is None else left if right is None else min(left, right)

    return Allowance(
        one.account,
        one.label,
        least(one.usd, other.usd),
        least(one.microseconds, other.microseconds),
        least(one.calls, other.calls),
    )


def _window(window: Window | timedelta, at: datetime) -> tuple[str, str]:
    at = at.astimezone(UTC)
    if isinstance(window, timedelta):
        number = (at - _EPOCH) // window
        begin = _EPOCH + number * window
        return f"{window // _MICROSECOND}us@{number}", f"for {window} from {begin:%Y-%m-%d %H:%M:%S} UTC"
    span = at.strftime(_FORMATS[window])
    return f"{window}@{span}", f"for the {window} {span}"


def _money(what: str, amount: Any) -> Decimal:
    if isinstance(amount, bool | float) or not isinstance(amount, Decimal | int | str):
        raise ConfigurationError(
            f"a budget's {what} is money: a Decimal, an int or a string of digits such as '0.50', not {amount!r}"
        )
    try:
        value = Decimal(amount)
    except InvalidOperation:
        raise ConfigurationError(f"a budget's {what} is an amount of money such as '0.50', not {amount!r}") from None
    if not value.is_finite() or value < 0:
        raise ConfigurationError(f"a budget's {what} is a finite amount of zero or more, not {amount!r}")
    if not -MOST_DIGITS < value.adjusted() < MOST_DIGITS or len(value.as_tuple().digits) > MOST_DIGITS:
        raise ConfigurationError(f"a budget's {what} has at most {MOST_DIGITS} digits before and after its point")
    return value


def _seconds(amount: Any) -> Decimal:
    if isinstance(amount, bool) or not isinstance(amount, Decimal | int | float):
        raise ConfigurationError(f"a budget's seconds are a number, not {amount!r}")
    value = Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount)
    if not value.is_finite() or value < 0:
        raise ConfigurationError(f"a budget's seconds are a finite number of zero or more, not {amount!r}")
    if not -MOST_DIGITS < value.adjusted() < MOST_DIGITS:
        raise ConfigurationError(f"a budget's seconds have at most {MOST_DIGITS} digits before and after their point")
    return value
