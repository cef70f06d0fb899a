"""What is known of one certificate in service, how it is kept as JSON, and how it is put in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..errors import WatchError
from ..statistics import DriftMartingale, ShiftMartingale, check_histogram
from .book import Book, Key

__all__ = ["Alarm", "State", "WatchStatus", "Watched", "alarm_from", "now", "plain", "revocation"]


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched: at most ``alpha`` of a specialist's accepted answers are wrong, with confidence 1 - ``delta``.

    ``certificate``: its id; another calibration is another one, and watched anew. ``edges``, ``counts``: the
    calibration's confidences (:func:`specialists.statistics.histogram`); without counts no drift is looked for. Raises
    ``ValueError`` for what cannot be.
    """

    name: str
    certificate: str
    alpha: float
    delta: float
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for what, value in (("alpha", self.alpha), ("delta", self.delta)):
            if not 0 < value < 1:
                raise ValueError(f"{what} lies between 0 and 1, and is neither, not {value!r}")
        if self.counts or self.edges:
            check_histogram(self.edges, self.counts)

    @property
    def key(self) -> Key:
        """What a store finds it by."""
        return Key(self.name, self.certificate)


@dataclass(frozen=True, slots=True)
class Alarm:
    """What revoked a certificate: at this time (ISO 8601), after so many audits with so many errors."""

    at: str
    audits: int
    errors: int

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {"at": self.at, "audits": self.audits, "errors": self.errors}


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """How the watch on one certificate stands.

    ``e_value``: what a bet of 1 against the promise has become; it alarms at 1/``delta``. ``drift_e_value``: the same
    against "confidences are as they were"; ``None`` where no drift is looked for. ``drift_warned``: when it warned.
    ``awaiting``: answers that wait for a label.
    """

    name: str
    certificate: str
    alpha: float
    delta: float
    calls: int
    audits: int
    errors: int
    e_value: float
    alarm: Alarm | None
    drift_e_value: float | None
    drift_warned: str | None
    awaiting: int

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "name": self.name,
            "certificate": self.certificate,
            "alpha": self.alpha,
            "delta": self.delta,
            "calls": self.calls,
            "audits": self.audits,
            "errors": self.errors,
            "e_value": self.e_value,
            "alarm": None if self.alarm is None else self.alarm.to_json(),
            "drift_e_value": self.drift_e_value,
            "drift_warned": self.drift_warned,
            "awaiting": self.awaiting,
        }


@dataclass
class State:
    """What a store keeps for one certificate, beside its rows."""

    alpha: float
    delta: float
    calls: int = 0
    shift: ShiftMartingale | None = None
    drift: DriftMartingale | None = None
    alarm: Alarm | None = None
    warned: str | None = None

    @classmethod
    def of(cls, book: Book, watched: Watched) -> State:
        data = book.state(watched.key)
        if data is None:
            return cls(watched.alpha, watched.delta)
        state = cls.from_json(watched.key, data)
        state.alpha, state.delta = watched.alpha, watched.delta
        return state

    def to_json(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "delta": self.delta,
            "calls": self.calls,
            "shift": None if self.shift is None else self.shift.to_json(),
            "drift": None if self.drift is None else self.drift.to_json(),
            "alarm": None if self.alarm is None else self.alarm.to_json(),
            "warned": self.warned,
        }

    @classmethod
    def from_json(cls, key: Key, data: Mapping[str, Any]) -> State:
        try:
            return cls(
                alpha=float(data["alpha"]),
                delta=float(data["delta"]),
                calls=int(data["calls"]),
                shift=None if data["shift"] is None else ShiftMartingale.from_json(data["shift"]),
                drift=None if data["drift"] is None else DriftMartingale.from_json(data["drift"]),
                alarm=alarm_from(key, data["alarm"]),
                warned=data["warned"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(key, error) from error

    def status(self, key: Key, awaiting: int) -> WatchStatus:
        return WatchStatus(
            name=key.name,
            certificate=key.certificate,
            alpha=self.alpha,
            delta=self.delta,
            calls=self.calls,
            audits=0 if self.shift is None else self.shift.audits,
            errors=0 if self.shift is None else self.shift.errors,
            e_value=1.0 if self.shift is None else self.shift.value,
            alarm=self.alarm,
            drift_e_value=None if self.drift is None else self.drift.value,
            drift_warned=self.warned,
            awaiting=awaiting,
        )


def alarm_from(key: Key, data: Any) -> Alarm | None:
    try:
        return None if data is None else Alarm(str(data["at"]), int(data["audits"]), int(data["errors"]))
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(key, error) from error


def unreadable(key: Key, error: Exception) -> WatchError:
    return WatchError(
        f"the store's state of {plain(key.name)} cannot be read ({type(error).__name__}: {error});"
        " put a copy of the store back, or begin a new one"
    )


def revocation(watched: Watched, alarm: Alarm) -> str:
    return (
        f"revoked since {alarm.at}: {alarm.errors} of {alarm.audits} audited answers were wrong, which says that more"
        f" than {watched.alpha:g} of them are; calibrate anew with"
        f" `brain specialists calibrate {plain(watched.name)} CASES.jsonl`"
    )


def plain(name: str) -> str:
    """A name as it stands in a log line, which a strange one must not break."""
    return name if name.isprintable() else repr(name)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
