"""The other examples run as a newcomer runs them: as programs, in an empty folder, with no key."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from brain import Brain, EndpointUnavailable, MissingKey
from brain.testing import FakeEndpoint, Fault, ScriptedModel
from examples import batch

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "BRAIN_"))}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=cwd,
        env={**clean, "COLUMNS": "120", "PYTHONPATH": str(EXAMPLES.parent), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_registering_a_specialist_in_code_and_as_a_folder(tmp_path: Path) -> None:
    ended = run("register_specialist.py", "--folder", str(tmp_path / "root_finder"), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "whole_root(b=-5, c=6): 3, accepted because verified" in ended.stdout
    assert "9 of 12 right and accepted, 0 wrong and accepted" in ended.stdout
    assert "abstained: " in ended.stdout
    assert "pass trust=True" in ended.stdout
    assert "5, answered by specialist, accepted because verified" in ended.stdout
    assert "its sha256 differs" in ended.stdout
    assert (tmp_path / "root_finder" / "specialist.toml").is_file()


def test_the_fallback_says_that_its_endpoint_is_a_test_endpoint(tmp_path: Path) -> None:
    ended = run("fallback.py", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "OPENAI_API_KEY is not set: the big model is a test endpoint on this machine" in ended.stdout
    assert "-> 3 by specialist, verified" in ended.stdout
    assert "-> 10 by big_model, verified" in ended.stdout
    assert "wire: rate_limited (429)" in ended.stdout
    assert "-> abstained" in ended.stdout
    receipt = ended.stdout.partition("\nreceipt\n")[2]
    assert "pretend-model" in receipt
    assert "4 x" in receipt


def test_the_fallback_asks_the_endpoint_of_the_environment(tmp_path: Path) -> None:
    with FakeEndpoint('{"answer": 10}', require_key=True) as endpoint:
        ended = run(
            "fallback.py",
            "--model",
            "openai:some-model",
            cwd=tmp_path,
            OPENAI_API_KEY=endpoint.api_key,
            OPENAI_BASE_URL=endpoint.base_url,
        )
    assert ended.returncode == 0, ended.stderr
    assert "test endpoint" not in ended.stdout
    assert "-> 10 by big_model, verified" in ended.stdout
    assert [row.model for row in endpoint.meter] == ["some-model"] * 5
    assert endpoint.api_key not in ended.stdout + ended.stderr


def test_a_certificate_is_made_kept_and_revoked(tmp_path: Path) -> None:
    ended = run("certified.py", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert "wrong at most 5 % of the time, with 95 % confidence" in lines[0]
    usual, shifted, later = (line for line in lines if "audited" in line)
    assert usual.startswith("  {'certified': 500}")
    assert usual.endswith("the certificate holds")
    assert "'unchecked'" in shifted
    assert "the certificate revoked after" in shifted
    assert later.startswith("  {'unchecked': 200}")


def test_the_fallback_with_a_model_that_cannot_be_ends_in_one_sentence(tmp_path: Path) -> None:
    ended = run("fallback.py", "--model", "some-model", cwd=tmp_path, OPENAI_API_KEY="a-key-of-no-use")
    assert ended.returncode == 1
    assert ended.stderr.startswith("UnknownModel: ")
    assert "Traceback" not in ended.stderr


def test_budgets_hold_and_a_killed_run_is_taken_up(tmp_path: Path) -> None:
    ended = run("budgeted.py", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "the first start ended with 9" in ended.stdout
    assert "order-1 of acme: 1 boxes are booked. (0 requests now)" in ended.stdout  # done by the first start
    assert "order-2 of bolt: 1 boxes are booked. (1 requests now)" in ended.stdout  # of three: two were made before
    assert "order-4 of tiny: refused: the budget of the tenant 'tiny'" in ended.stdout
    assert "booked: 3\n" in ended.stdout
    assert "had it answered the 3 calls that specialists answered" in ended.stdout
    again = run("budgeted.py", "--work", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("(0 requests now)") == 3


def test_the_batch_answers_its_rows_and_is_done_the_second_time(tmp_path: Path) -> None:
    first = run("batch.py", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    rows = results(tmp_path / "batch_results.jsonl")
    assert len(rows) == 9
    assert rows["s1"]["calls"][0]["accepted_by"] == "verified"
    assert "534678912672195348198342567859761423426853791713924856961537284287419635345286179" in rows["s1"]["output"]
    assert rows["s3"]["error"] == "Abstained"
    assert rows["o1"]["error"] == "Abstained"
    assert rows["e1"]["error"] == "PromptError"
    assert "receipt" in first.stdout
    second = run("batch.py", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "9 had a result" in second.stdout
    assert len((tmp_path / "batch_results.jsonl").read_text().splitlines()) == 9


async def test_a_batch_tries_again_what_may_go_better(tmp_path: Path) -> None:
    rows, out = write(tmp_path, "a", "b"), tmp_path / "out.jsonl"
    await work(Brain(ScriptedModel(["one", EndpointUnavailable("down")])), rows, out)
    assert results(out)["b"]["again"] is True
    with out.open("a") as file:
        file.write('{"id": "cut')  # as after a kill in the middle of a line
    async with ScriptedModel(["two"]) as model:
        totals = await work(Brain(model), rows, out)
    assert totals.counts == {"had a result": 1, "answered": 1}
    assert results(out)["b"]["output"] == "two"


async def test_a_batch_runs_so_many_rows_at_a_time_and_no_more(tmp_path: Path) -> None:
    with FakeEndpoint("fine", latency=0.05) as endpoint:
        from brain import OpenAIModel

        rows = write(tmp_path, *(f"row {number}" for number in range(12)))
        running = most = 0

        class Counted(OpenAIModel):
            async def ask(self, *args: Any, **kwargs: Any) -> Any:
                nonlocal running, most
                running += 1
                most = max(most, running)
                try:
                    return await super().ask(*args, **kwargs)
                finally:
                    running -= 1

        async with Brain(Counted("m", base_url=endpoint.base_url)) as brain:
            await work(brain, rows, tmp_path / "out.jsonl")
    assert most == 3
    assert len(endpoint.meter) == 12


async def test_a_mistake_in_the_set_up_ends_the_batch(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup):
        await work(Brain(ScriptedModel([MissingKey("no key")] * 2)), write(tmp_path, "a", "b"), tmp_path / "out.jsonl")


def test_a_mistake_in_the_set_up_is_said_once(tmp_path: Path) -> None:
    with FakeEndpoint(Fault.redirect("http://127.0.0.1:1/")) as endpoint:
        address = {"OPENAI_API_KEY": endpoint.api_key, "OPENAI_BASE_URL": endpoint.base_url}
        ended = run("batch.py", "--model", "openai:m", cwd=tmp_path, **address)
    assert ended.returncode == 1
    assert ended.stderr.count("redirects") == 1
    assert "Traceback" not in ended.stderr


def test_a_batch_that_is_interrupted_keeps_what_is_done(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Any:
        return "done" if len(endpoint.requests) == 1 else Fault.hang()

    with FakeEndpoint(answer) as endpoint:
        environment = {**os.environ, "OPENAI_API_KEY": endpoint.api_key, "OPENAI_BASE_URL": endpoint.base_url}
        program = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "batch.py"), "--model", "openai:m", "--concurrency", "1"],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(EXAMPLES.parent)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # Started by a shell's background job, this process may ignore the signal, and a child would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while len(endpoint.requests) < 2 and program.poll() is None:
            time.sleep(0.05)
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=60)
    assert program.returncode == 1
    assert said.strip() == "stopped; start it again to go on, what is done is in batch_results.jsonl"
    assert [row["output"] for row in results(tmp_path / "batch_results.jsonl").values()] == ["done"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"id": 1, "request": "a"}\n{"id": 2}\n', "line 2: not of the form"),
        ('{"id": 1, "request": "a"}\nnonsense\n', "line 2: not of the form"),
        ('{"id": 1, "request": "a"}\n{"id": 1, "request": "b"}\n', "line 2: the id 1 stands twice"),
    ],
)
def test_a_bad_line_is_found_before_anything_runs(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(batch.RowError, match=complaint):
        list(batch.read_rows(tmp_path / "rows.jsonl"))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    ended = run("batch.py", "nowhere.jsonl", cwd=tmp_path)
    assert ended.returncode == 1
    assert "nowhere.jsonl" in ended.stderr
    assert "Traceback" not in ended.stderr


async def work(brain: Brain[str], rows: Path, out: Path) -> batch.Totals:
    console = Console(quiet=True)
    return await batch.work(brain, rows, out, concurrency=3, timeout=30, console=console)


def write(folder: Path, *requests: str) -> Path:
    path = folder / "rows.jsonl"
    lines = [json.dumps({"id": request, "request": request}) for request in requests]
    path.write_text("\n".join(lines) + "\n")
    return path


def results(path: Path) -> dict[Any, dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["id"]: row for row in rows}
