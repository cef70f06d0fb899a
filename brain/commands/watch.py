"""``brain watch``: what a store knows of certificates that are watched in service, and labels from a person."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import complain, table, write, write_json

if TYPE_CHECKING:
    from specialists.watching import WatchStatus

__all__ = ["configure"]

_DESCRIPTION = """\
STORE is the file of a `specialists.SqliteStore`, in which `Brain(watch=Watch(SqliteStore(...)))` keeps its audits.
Shows, for each certificate, the calls seen, the answers audited and found wrong, how strongly the audits speak against
the certificate, and whether an alarm has revoked it. Answers that were drawn for an audit when no model was at hand
wait for a person: label all that wait, right and wrong alike, for a choice among them would spoil the test. Exit code 1
when a certificate is revoked."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to ``parser``."""
    parser.description = _DESCRIPTION
    parser.epilog = """examples:
  brain watch watch.db                          what is known
  brain watch watch.db --waiting                the answers that wait for a label, as JSON lines
  brain watch watch.db --label CALL_ID right    the answer to this call was right"""
    parser.add_argument("store", metavar="STORE", help="the file of a SqliteStore")
    parser.add_argument("--waiting", action="store_true", help="print the answers that wait for a label, one a line")
    parser.add_argument("--label", nargs=2, metavar=("CALL_ID", "right|wrong"), help="say whether an answer was right")
    parser.add_argument("--by", default="person", metavar="WHO", help="who labels (default: person)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.set_defaults(run=_run, parser=parser)


def _run(arguments: argparse.Namespace) -> int:
    from specialists.watching import SqliteStore, Watch

    if not Path(arguments.store).is_file():
        complain(f"there is no store {arguments.store!r}; it is made by Watch(SqliteStore({arguments.store!r}))")
        return 2
    with Watch(SqliteStore(arguments.store), auditor_error=None) as watch:
        if arguments.label is not None:
            call_id, word = arguments.label
            if word not in ("right", "wrong"):
                complain(f"an answer is right or wrong, not {word!r}")
                return 2
            if not watch.label(call_id, word == "wrong", arguments.by):
                complain(f"{call_id!r} had this label already")
        found = watch.status()
        if arguments.waiting:
            for status in found:
                for each in watch.waiting(status.name, status.certificate):
                    told = {"specialist": status.name, "certificate": status.certificate}
                    write_json({**told, "call_id": each.call_id, "at": each.at, "answer": each.value_json})
            return 0
    data: list[dict[str, Any]] = [status.to_json() for status in found]
    revoked = any(status.alarm is not None for status in found)
    if arguments.json:
        write_json({"watched": data, "format": 1})
        return int(revoked)
    if not found:
        write("nothing was watched yet")
        return 0
    table(
        ["specialist", "certificate", "calls", "audited", "wrong", "waiting", "evidence", "state"],
        [
            (
                status.name,
                status.certificate[:12],
                f"{status.calls:,}",
                f"{status.audits:,}",
                f"{status.errors:,}",
                f"{status.awaiting:,}",
                f"{status.e_value:.3g} of {1 / status.delta:.3g}",
                _state(status),
            )
            for status in found
        ],
        right=["calls", "audited", "wrong", "waiting", "evidence"],
    )
    return int(revoked)


def _state(status: WatchStatus) -> str:
    if status.alarm is not None:
        return f"revoked {status.alarm.at}"
    return f"drifted {status.drift_warned}" if status.drift_warned else "holds"
