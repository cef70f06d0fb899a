"""How an attempt becomes a row of the ledger, and the change that writes it down.

Each description takes one tuple of what was known when the attempt ended, so that it can be made at once, or when
somebody looks; what waits in memory is then no more than that tuple.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from specialists import Attempt, Cost, Policy

from .events import WireAttempt
from .storage.changes import Allowance, Settle
from .storage.rows import LedgerRow, RowKind, moment

__all__ = ["OWN_WORK", "Whose", "attempt_settled", "brain_settled", "model_settled"]


OWN_WORK = "planning and dispatch"
"""What the brain's own work is called."""


class Whose(NamedTuple):
    """What all rows of a run have in common."""

    run: str
    parent_run: str | None = None
    session: str | None = None
    tenant: str | None = None
    owner: str | None = None

    def row(self, kind: RowKind, name: str, **fields: Any) -> LedgerRow:
        """A row of the run; with an id of its own, unless one is given."""
        fields.setdefault("id", os.urandom(16).hex())
        return LedgerRow(
            kind=kind,
            name=name,
            run=self.run,
            parent_run=self.parent_run,
            session=self.session,
            tenant=self.tenant,
            owner=self.owner,
            **fields,
        )


Ended = tuple[
    Whose, WireAttempt, str | None, str | None, str, float | str, str | None, tuple[Allowance, ...]
]  # the call, the tool, the rung, when it began, the row it had in flight under another id, who else bears it


def model_settled(ended: Ended) -> Settle:
    """A wire attempt."""
    whose, wire, call, tool, rung, at, instead_of, extra = ended
    row = whose.row(
        "model",
        wire.model,
        id=wire.id,
        call=call,
        tool=tool,
        rung=rung,
        answered=wire.answered_model,
        endpoint=wire.endpoint,
        at=_moment(at),
        outcome=wire.outcome,
        cost=wire.cost,
        price=wire.price,
        usage=wire.usage.to_json(),
        seconds=wire.seconds,
        details=wire.to_json(),
    )
    return Settle(row, instead_of=instead_of, allowances=extra)


Tried = tuple[
    Whose, RowKind, Attempt, str | None, str | None, Policy | None, bool, Cost, float | str, str | None
]  # the call, the tool, the policy, whether it was an audit, its cost, when it began, the id of its row in flight


def attempt_settled(tried: Tried) -> Settle:
    """An attempt on a rung."""
    whose, kind, attempt, call, tool, policy, audit, cost, at, id = tried
    certificate = None if policy is None else policy.certificate
    row = whose.row(
        kind,
        attempt.source or attempt.rung,
        call=call,
        tool=tool,
        rung=attempt.rung,
        at=_moment(at),
        outcome=attempt.outcome,
        cost=cost,
        seconds=attempt.seconds,
        cpu_seconds=attempt.cpu_seconds,
        cpu_seconds_low=attempt.cpu_seconds_low,
        confidence=attempt.confidence,
        verdict=None if attempt.verdict is None else attempt.verdict.status,
        steps=attempt.steps,
        policy=None if policy is None else policy.to_json(),
        certificate=None if certificate is None else certificate.status,
        audit=audit,
        details=attempt.to_json(),
        **({} if id is None else {"id": id}),
    )
    return Settle(row)


Worked = tuple[Whose, float, Cost, str | None, tuple[Allowance, ...]]  # CPU seconds, its row in flight, who bears it


def brain_settled(worked: Worked) -> Settle:
    """The brain's own work in a run."""
    whose, cpu_seconds, cost, id, extra = worked
    fields = {} if id is None else {"id": id}
    row = whose.row("brain", OWN_WORK, outcome="answered", cost=cost, cpu_seconds=cpu_seconds, **fields)
    return Settle(row, allowances=extra, calls=0)


def _moment(at: float | str) -> str:
    return at if isinstance(at, str) else moment(at)
