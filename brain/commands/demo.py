"""``brain demo``: how the demo is asked for. What it does is in :mod:`brain.demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["configure"]

_EPILOG = """\
Without --model the built-in planner plans: it needs no key and no network. With --model every request goes to the
endpoint that OPENAI_BASE_URL and OPENAI_API_KEY name, which may cost money.

what --json prints, one object per request:
  request, output, calls [{tool, arguments, value, answered_by, accepted_by,
  attempts [{rung, outcome, seconds, steps, confidence, verdict, reason, cost}]}], usage, error, format

examples:
  brain demo
  brain demo --json | python -m json.tool --json-lines
  brain demo --inbox my_requests.txt           one request a line, or JSON lines {"request": "..."}
  brain demo --model openai:gpt-4.1-mini
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``brain demo``."""
    parser.description = "Reads an inbox of plain English requests and shows how each is planned, answered and checked."
    parser.epilog = _EPILOG
    parser.add_argument("--inbox", metavar="FILE", type=Path, help="requests of your own (UTF-8)")
    parser.add_argument("--model", metavar="openai:NAME", help="let a chat model plan, and answer as the last rung")
    parser.add_argument("--json", action="store_true", help="one JSON object per request")
    parser.set_defaults(run=_run, parser=parser)


def _run(arguments: argparse.Namespace) -> int:
    from ..demo import main

    return main(arguments.inbox, arguments.model, arguments.json)
