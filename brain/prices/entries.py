"""One line of a price book: for which model, where, in which tier, from when until when, and what it costs.

This module knows nothing of files or lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from ..errors import PriceError
from .exact import amount
from .rates import Amount, Price
from .tiers import STANDARD, tier_name

__all__ = ["ANY_TIER", "BEGINNING", "END", "PriceEntry", "moment_of"]

ANY_TIER = "any"
BEGINNING = datetime.min.replace(tzinfo=UTC)
END = datetime.max.replace(tzinfo=UTC)

_MOST_FACTOR = 10
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class PriceEntry:
    """What a model costs, for a :class:`~brain.prices.PriceBook`.

    ``model``: its name; with a ``*`` at the end all names that begin so. Case does not matter. Then either

    * ``price``, by tokens, or ``per_second``, US dollars for each second that a request takes (a model on a machine
      of one's own), or both, which add up; or
    * ``factor``, of the list price: ``"0.8"`` for a fifth off. ``like``: the model whose list price it is, where that
      is not the model's own name.

    ``endpoint``: an origin or a base URL; ``None`` is any. ``tier``: the service tier; ``any`` for all of them;
    ``None`` is the standard one for a price, and all for a factor. ``since``, ``until``: a date (its midnight in UTC)
    or a moment with a time zone; at ``until`` the entry does not hold any more. ``label`` names the entry in messages
    and snapshots.

    Raises :class:`~brain.errors.PriceError`.
    """

    model: str
    price: Price | None = None
    per_second: Decimal | None = None
    factor: Decimal | None = None
    like: str | None = None
    endpoint: str | None = None
    tier: str | None = None
    since: datetime = BEGINNING
    until: datetime = END
    label: str = ""

    def __init__(
        self,
        model: str,
        price: Price | None = None,
        *,
        per_second: Amount | None = None,
        factor: Amount | None = None,
        like: str | None = None,
        endpoint: str | None = None,
        tier: str | None = None,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        label: str | None = None,
    ) -> None:
        name = _name("model", model)
        where = label or f"The price entry for {name}"
        if "*" in name[:-1]:
            raise PriceError(
                f"{where}: a * stands only at the end of a name, and means any ending; {name!r} has another."
            )
        if price is not None and not isinstance(price, Price):
            raise PriceError(f"{where}: price is a Price, not {type(price).__name__}.")
        if like is not None and factor is None:
            factor = 1
        if (price is None and per_second is None) is (factor is None):
            raise PriceError(f"{where}: give a price (by tokens, by seconds, or both) or a factor of the list price.")
        if like is not None and "*" in _name("like", like):
            raise PriceError(f"{where}: like names one model, without a *.")
        values: dict[str, Any] = {
            "model": name,
            "price": price,
            "per_second": _amount(where, "per_second", per_second),
            "factor": _amount(where, "factor", factor),
            "like": None if like is None else _name("like", like),
            "endpoint": None if endpoint is None else _place(where, endpoint),
            "tier": _tier(where, tier) if tier is not None else None if factor is not None else STANDARD,
            "since": BEGINNING if since is None else moment_of(where, "since", since),
            "until": END if until is None else moment_of(where, "until", until),
            "label": where,
        }
        if values["factor"] is not None and values["factor"] > _MOST_FACTOR:
            raise PriceError(f"{where}: a factor is a part of the list price, 0.8 for a fifth off, not {factor}.")
        if values["since"] >= values["until"]:
            raise PriceError(f"{where}: it ends ({values['until']}) before it begins ({values['since']}).")
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def matches(self, model: str, endpoint: str | None) -> bool:
        """Whether it is about ``model`` (a bare name) at ``endpoint`` (a base URL)."""
        name = model.lower()
        if not (name.startswith(self.model[:-1]) if self.model.endswith("*") else name == self.model):
            return False
        if self.endpoint is None:
            return True
        if endpoint is None:
            return False
        place = _url(endpoint)
        return place is not None and (place == self.endpoint or place.startswith(self.endpoint + "/"))

    def holds(self, at: datetime) -> bool:
        """Whether it holds at this moment."""
        return self.since <= at < self.until

    @property
    def place(self) -> tuple[int, bool, int, str, str]:
        """Orders entries: the greater, the more is said. Who sends the bill says more than what is billed."""
        exact = not self.model.endswith("*")
        return len(self.endpoint or ""), exact, len(self.model), self.endpoint or "", self.model


def _name(what: str, value: Any) -> str:
    name = value.removeprefix("openai:").strip().lower() if isinstance(value, str) else ""
    if not name or not name.isprintable() or len(name) > 256:
        raise PriceError(f"{what} is a model's name, for example gpt-4.1-mini or gpt-4.1*, not {value!r}.")
    return name


def _amount(where: str, what: str, value: Amount | None) -> Decimal | None:
    try:
        return None if value is None else amount(what, value)
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise PriceError(f"{where}: {problem}.")


def _tier(where: str, tier: Any) -> str:
    if not isinstance(tier, str) or not tier.strip() or len(tier) > 40 or not tier.isprintable():
        raise PriceError(f"{where}: tier is a service tier such as standard, flex, batch or any, not {tier!r}.")
    return tier_name(tier)


def moment_of(where: str, what: str, value: Any) -> datetime:
    """A date's midnight in UTC, or the moment itself; ``what`` of ``where`` is named in a ``PriceError``."""
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise PriceError(f"{where}: {what} {value} needs a time zone, such as {value.isoformat()}Z for UTC.")
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise PriceError(f"{where}: {what} is a date such as 2026-07-01, or a moment with a time zone, not {value!r}.")


def _place(where: str, endpoint: Any) -> str:
    place = _url(endpoint) if isinstance(endpoint, str) else None
    if place is None:
        raise PriceError(
            f"{where}: endpoint is an origin or a base URL such as https://api.openai.com/v1, nothing more."
        )
    return place


def _url(url: str) -> str | None:
    """``url`` with nothing in it that could be written in two ways; ``None`` when it is no base URL."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.rstrip(".")
    return f"{parts.scheme}://{host}:{port or _PORTS[parts.scheme]}{parts.path.rstrip('/')}"
