"""A pipeline with a budget for each tenant, killed in the middle and taken up; then the ledger, and what was saved.

    pip install .[cpu,dev]
    python examples/budgeted.py

The big model is a test endpoint on this machine: no key, no network, and a made-up price. Each order is a run of its
own name in `orders.db`. The first start is killed, by itself, after the parcel of one order was booked; the second
start of the same orders books nothing twice. A tenant that has spent its day's money is refused before anything is
sent. Started again, every order is done already.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from brain import Brain, Budget, BudgetExceeded, Ledger, OpenAIModel, Price, RunContext, Savings, tool
from brain.testing import FakeEndpoint, call
from specialists import Answer, Verdict, specialist

LEDGER = "orders.db"
BOOKED = Path("booked.txt")
ORDERS = {"order-1": ("acme", 3), "order-2": ("bolt", 5), "order-3": ("acme", 12), "order-4": ("tiny", 2)}
PRICE = Price("2.00", "8.00")  # US dollars per million tokens
DAILY = {"acme": "0.05", "bolt": "0.05", "tiny": "0.0001"}


def fits(arguments: Mapping[str, Any], value: int) -> Verdict:
    """Six items go into a box, and no box is empty."""
    right = (arguments["items"] + 5) // 6
    return Verdict.passed() if value == right else Verdict.failed(f"{value} boxes are not {right}")


@specialist(verify=fits, sound=True, complete=True)
def boxes(items: Annotated[int, Field(ge=1, le=600, description="how many items")]) -> Answer[int]:
    """How many boxes of six the items take."""
    return Answer(-(-items // 6))


@tool(effect="idempotent")
def book(ctx: RunContext[None], count: int) -> str:
    """Book a parcel of so many boxes."""
    booked = BOOKED.read_text("utf-8").splitlines() if BOOKED.exists() else []
    if ctx.idempotency_key not in booked:  # what the carrier does with a key
        with BOOKED.open("a", encoding="utf-8") as file:
            file.write(f"{ctx.idempotency_key}\n")
    if os.environ.get("KILL_AT") == ctx.run_id:
        os._exit(9)  # as when the machine's memory is full
    return "booked"


def answer(body: dict[str, Any]) -> Any:
    """What the test endpoint says: first how many boxes, then the booking, then a sentence."""
    asked = next(message["content"] for message in body["messages"] if message["role"] == "user")
    said = [json.loads(message["content"]) for message in body["messages"] if message["role"] == "tool"]
    if not said:
        return call("boxes", items=int(asked.split()[1]))
    if len(said) == 1:
        return call("book", count=said[0]["value"])
    return f"{said[0]['value']} boxes are booked."


def work() -> None:
    """Answer every order; what was done before is not done again."""
    with FakeEndpoint(answer, models=("big",)) as endpoint:
        model = OpenAIModel(
            "big", base_url=endpoint.base_url, api_key=endpoint.api_key, price=PRICE, max_output_tokens=200
        )
        for order, (tenant, items) in ORDERS.items():
            budget = Budget(usd=DAILY[tenant], per="tenant", window="day")
            brain = Brain(model, tools=[book], specialists=[boxes], ledger=LEDGER, budget=budget)
            try:
                before = len(endpoint.requests)
                result = brain.run_sync(f"Send {items} items", run_id=order, tenant=tenant)
                print(f"{order} of {tenant}: {result.output} ({len(endpoint.requests) - before} requests now)")
            except BudgetExceeded as error:
                print(f"{order} of {tenant}: refused: {error}")
            finally:
                brain.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A budget for each tenant, a crash, and a run taken up.")
    parser.add_argument("--work", action="store_true", help="only answer the orders, in this process")
    if parser.parse_args().work:
        work()
        return
    command = [sys.executable, __file__, "--work"]
    first = subprocess.run(command, env={**os.environ, "KILL_AT": "order-2"}, check=False)
    print(f"the first start ended with {first.returncode}; the same orders once more")
    subprocess.run(command, check=True)
    print(f"booked: {len(BOOKED.read_text('utf-8').splitlines())}\n")
    ledger = Ledger(LEDGER)
    for each in ledger.sums("tenant"):
        print(f"{each.key}: {each.cost} in {each.rows} rows")
    print(Savings.of_ledger(ledger, "big", price=PRICE, specialists=[boxes]))
    ledger.close()


if __name__ == "__main__":
    main()
