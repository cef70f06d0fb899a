"""The FastAPI example under its own test client: answers, streams, and every kind of error as a status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from brain import AuthenticationFailed, Brain, ModelTimeout, RateLimited, TurnLimit, tool
from brain.testing import ScriptedModel, call
from examples import fastapi_app


@contextmanager
def client(make_brain: Callable[[], Brain[str]], timeout: float = 30.0) -> Iterator[TestClient]:
    app = fastapi_app.create_app(make_brain, timeout=timeout)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def plain_brain() -> Brain[str]:
    return Brain(tools=[fastapi_app.order_status])


def ask(make_brain: Callable[[], Brain[str]], request: str = "Where is order 1002?", timeout: float = 30.0) -> Any:
    with client(make_brain, timeout) as http:
        return http.post("/ask", json={"request": request})


def test_an_answer_says_who_gave_it_and_what_it_cost() -> None:
    response = ask(plain_brain)
    assert response.status_code == 200, response.text
    body = response.json()
    assert "on its way" in body["output"]
    assert [(row["tool"], row["answered_by"], row["accepted_by"]) for row in body["calls"]] == [
        ("order_status", "function", "unchecked")
    ]
    assert body["cost"]["status"] == "exact"
    assert body["run_id"]


def test_the_brain_is_made_once_and_closed_at_the_end() -> None:
    model = ScriptedModel(["one", "two"])
    made: list[Brain[str]] = []
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    model.aclose = close  # type: ignore[method-assign]

    def make() -> Brain[str]:
        made.append(Brain(model))
        return made[-1]

    with client(make) as http:
        assert http.get("/health").json() == {"status": "ok"}
        assert http.post("/ask", json={"request": "a"}).json()["output"] == "one"
        assert http.post("/ask", json={"request": "b"}).json()["output"] == "two"
        assert not closed
    assert len(made) == 1
    assert closed


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RateLimited("too many", retry_after=7), 503),
        (ModelTimeout("slow"), 504),
        (AuthenticationFailed("no"), 502),
        (TurnLimit("many turns"), 422),
    ],
)
def test_a_models_error_becomes_a_status(error: Exception, status: int) -> None:
    response = ask(lambda: Brain(ScriptedModel([error])))
    assert response.status_code == status
    assert response.json()["error"] == type(error).__name__
    assert response.json()["run_id"]
    assert response.headers.get("Retry-After") == ("7" if isinstance(error, RateLimited) else None)


def test_an_abstention_is_422_with_the_reason_and_the_bill() -> None:
    response = ask(plain_brain, "Write a poem about the sea")
    assert response.status_code == 422
    assert response.json()["error"] == "Abstained"
    assert response.json()["message"]
    assert response.json()["cost"]["status"] == "exact"


@pytest.mark.parametrize("request_text", ["", "  \n "])
def test_an_empty_request_is_400(request_text: str) -> None:
    response = ask(plain_brain, request_text)
    assert response.status_code == 400
    assert response.json()["error"] == "PromptError"


@pytest.mark.parametrize("body", ["{}", "[]", "not json", '{"request": 5}', r'{"request": "\ud800"}'])
def test_a_body_of_the_wrong_form_is_400(body: str) -> None:
    with client(plain_brain) as http:
        response = http.post("/ask", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["message"]


def test_a_run_that_takes_too_long_is_504_and_tells_what_was_called() -> None:
    @tool
    async def wait(seconds: int) -> str:
        """Wait some seconds."""
        await asyncio.sleep(seconds)
        return "done"

    response = ask(lambda: Brain(ScriptedModel([call("wait", seconds=30)]), tools=[wait]), timeout=1.0)
    assert response.status_code == 504
    assert response.json()["error"] == "RunTimeout"
    assert [row["tool"] for row in response.json()["calls"]] == ["wait"]


def test_a_pending_approval_is_409() -> None:
    @tool(requires_approval=True)
    def refund(order: int) -> str:
        """Pay the money back."""
        raise AssertionError("never without a person")

    response = ask(lambda: Brain(ScriptedModel([call("refund", order=1002)]), tools=[refund]))
    assert response.status_code == 409


def test_a_stream_tells_each_step_and_ends_with_the_bill() -> None:
    with client(plain_brain) as http:
        events = _events(http.post("/ask/stream", json={"request": "Where is order 1002?"}).text)
    assert [name for name, _ in events] == ["called", "answered", "text", "done"]
    assert events[0][1] == {"tool": "order_status", "arguments": {"order": 1002}}
    assert events[1][1]["accepted_by"] == "unchecked"
    assert events[3][1]["cost"]["status"] == "exact"


def test_a_stream_that_fails_ends_with_a_problem() -> None:
    with client(plain_brain) as http:
        events = _events(http.post("/ask/stream", json={"request": "Write a poem about the sea"}).text)
    assert events[-1][0] == "problem"
    assert events[-1][1]["error"] == "Abstained"


def test_the_shipped_rows_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    fastapi_app.try_rows(fastapi_app.REQUESTS)
    printed = capsys.readouterr().out
    statuses = [line.split()[0] for line in printed.splitlines() if line.startswith("  ")]
    assert statuses == ["200", "200", "200", "422", "422", "400"]
    assert '"accepted_by":"verified"' in printed


def _events(text: str) -> list[tuple[str, Any]]:
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]
