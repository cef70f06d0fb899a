"""A web application with a brain inside: FastAPI, one `Brain` for the whole process, typed answers, honest errors.

Run it, then ask it something:

    pip install .[cpu,dev]
    python examples/fastapi_app.py
    curl -s localhost:8000/ask -H 'Content-Type: application/json' -d '{"request": "Where is order 1002?"}'

or let it answer the rows of `fastapi_requests.jsonl` by itself, without a port:

    python examples/fastapi_app.py --try

No key and no network are needed: the plan comes from the built-in planner. Set BRAIN_MODEL=openai:NAME (and
OPENAI_API_KEY) to have a chat model plan, and answer what no specialist could.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from brain import (
    Abstained,
    ApprovalRequired,
    Brain,
    BrainError,
    ConfigurationError,
    Done,
    EndpointUnavailable,
    InvalidOutput,
    InvalidToolCall,
    ModelError,
    ModelTimeout,
    PromptError,
    RateLimited,
    RunResult,
    RunStopped,
    RunTimeout,
    TextDelta,
    ToolAnswered,
    ToolCalled,
    tool,
)

REQUESTS = Path(__file__).with_name("fastapi_requests.jsonl")

ORDERS = {1001: "delivered on Monday", 1002: "on its way, expected tomorrow", 1003: "waiting for payment"}


@tool(effect="pure")
def order_status(order: Annotated[int, Field(ge=1, description="the number of the order")]) -> str:
    """Say where an order is."""
    if order not in ORDERS:
        raise LookupError(f"there is no order {order}")
    return ORDERS[order]


def default_brain() -> Brain[str]:
    """One plain tool and two bundled specialists; a chat model only when BRAIN_MODEL names one."""
    return Brain(os.environ.get("BRAIN_MODEL"), tools=[order_status], specialists=["sudoku", "intent"])


class Ask(BaseModel):
    """What comes in."""

    request: str = Field(max_length=20_000)


class Call(BaseModel):
    """One tool call, and why its answer was taken (or was not: then `reason` says so)."""

    tool: str
    value: Any
    answered_by: str | None
    accepted_by: str | None
    reason: str | None


class Money(BaseModel):
    """US dollars, as strings so that no digit is lost. `high` is null when something had no price."""

    low: str
    high: str | None
    status: str


class Reply(BaseModel):
    """What goes out."""

    run_id: str
    output: str
    calls: list[Call]
    cost: Money


class Problem(BaseModel):
    """What goes out when there is no answer: the reason, and what was done and paid until then."""

    error: str
    message: str
    run_id: str | None = None
    calls: list[Call] = []
    cost: Money | None = None


STATUS: tuple[tuple[type[BrainError], int], ...] = (
    # The first that fits counts, so children stand before their parents.
    (PromptError, 400),
    (ApprovalRequired, 409),
    (Abstained, 422),
    (RunTimeout, 504),
    (RunStopped, 422),
    (InvalidToolCall, 502),
    (InvalidOutput, 502),
    (RateLimited, 503),
    (EndpointUnavailable, 503),
    (ModelTimeout, 504),
    (ModelError, 502),
    (ConfigurationError, 500),
)


def create_app(make_brain: Callable[[], Brain[str]] = default_brain, *, timeout: float = 30.0) -> FastAPI:
    """The application. `make_brain` is called once, when the server starts; tests hand in a brain of their own."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One brain for all requests: it is immutable, and its connections and models are shared by concurrent runs.
        async with make_brain() as brain:
            app.state.brain = brain
            yield

    app = FastAPI(title="A brain behind HTTP", lifespan=lifespan)
    app.add_exception_handler(BrainError, _brain_error)
    app.add_exception_handler(RequestValidationError, _bad_body)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/ask", responses={code: {"model": Problem} for code in (400, 409, 422, 500, 502, 503, 504)})
    async def ask(body: Ask, request: Request) -> Reply:
        brain: Brain[str] = request.app.state.brain
        result = await brain.run(body.request, timeout=timeout)
        return Reply(run_id=result.run_id, output=result.output or "", calls=_calls(result), cost=_money(result))

    @app.post("/ask/stream")
    async def ask_stream(body: Ask, request: Request) -> StreamingResponse:
        """The same as server-sent events. A client that goes away cancels the run."""
        brain: Brain[str] = request.app.state.brain
        return StreamingResponse(_events(brain, body.request, timeout), media_type="text/event-stream")

    return app


async def _events(brain: Brain[str], prompt: str, seconds: float) -> AsyncIterator[str]:
    try:
        async for event in brain.run_stream(prompt, timeout=seconds):
            if isinstance(event, TextDelta):
                yield _event("text", {"text": event.text})
            elif isinstance(event, ToolCalled):
                yield _event("called", {"tool": event.tool, "arguments": dict(event.arguments)})
            elif isinstance(event, ToolAnswered):
                yield _event("answered", _call(event.outcome).model_dump(mode="json"))
            elif isinstance(event, Done):
                cost = _money(event.result).model_dump()
                yield _event("done", {"run_id": event.result.run_id, "output": event.result.output, "cost": cost})
    except BrainError as error:  # the status line has gone out already, so the problem is an event
        yield _event("problem", _problem(error).model_dump(mode="json"))


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, default=str)}\n\n"


async def _brain_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BrainError)
    status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
    headers = {}
    if isinstance(error, RateLimited) and error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return JSONResponse(_problem(error).model_dump(mode="json"), status, headers)


async def _bad_body(request: Request, error: Exception) -> JSONResponse:
    """A body of the wrong form. The input is not repeated: it may be huge, secret, or not writable as UTF-8."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()]
    return JSONResponse(Problem(error="BadRequest", message="; ".join(problems)).model_dump(mode="json"), 400)


def _problem(error: BrainError) -> Problem:
    problem = Problem(error=type(error).__name__, message=str(error))
    if error.result is not None:  # what was done until then
        problem.run_id = error.result.run_id
        problem.calls = _calls(error.result)
        problem.cost = _money(error.result)
    return problem


def _calls(result: RunResult[Any]) -> list[Call]:
    return [_call(outcome) for outcome in result.calls]


def _call(outcome: Any) -> Call:
    return Call(
        tool=outcome.tool,
        value=outcome.value,
        answered_by=outcome.answered_by,
        accepted_by=outcome.accepted_by,
        reason=outcome.reason,
    )


def _money(result: RunResult[Any]) -> Money:
    return Money(**result.usage.cost.to_json())


app = create_app()


def try_rows(path: Path) -> None:
    """Post each row of `path` to the application, in this process, and print what comes back."""
    from fastapi.testclient import TestClient

    with TestClient(app, raise_server_exceptions=False) as client:
        for line in path.read_text("utf-8").splitlines():
            response = client.post("/ask", json=json.loads(line))
            print(f"POST /ask {line}\n  {response.status_code} {response.text}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="A FastAPI application with a brain inside.")
    parser.add_argument("--try", dest="rows", action="store_true", help=f"answer the rows of {REQUESTS.name} and end")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    if arguments.rows:
        try_rows(REQUESTS)
        return
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=arguments.port)


if __name__ == "__main__":
    main()
