"""The vote over a noisy extractor, run as a newcomer runs it: as a program, in an empty folder, with no key."""

from __future__ import annotations

from pathlib import Path

from brain.testing import FakeEndpoint

from .test_programs import run


def test_a_vote_reads_more_right_and_says_what_it_takes(tmp_path: Path) -> None:
    ended = run("voted.py", "--messages", "20", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "It is no language model" in ended.stdout
    shares = {
        line[:28].strip(): (float(line[28:36].strip().rstrip("%")), float(line[36:].split()[0]), line.split("$")[1])
        for line in ended.stdout.splitlines()
        if line.endswith("a message") and "calls" in line
    }
    one, whole, early = shares["one answer"], shares["vote of 9, all asked"], shares["vote of 9, early stop"]
    assert one[0] < early[0]
    assert one[0] < whole[0]
    assert one[1] == 1.0
    assert whole[1] == 9.0
    assert 1.0 < early[1] < 7.0
    assert "errors are correlated" not in ended.stdout
    assert "-> Order(order=" in ended.stdout


def test_correlated_errors_are_told(tmp_path: Path) -> None:
    ended = run("voted.py", "--correlation", "0.9", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "warning: errors are correlated" in ended.stdout


def test_it_asks_the_endpoint_of_the_environment(tmp_path: Path) -> None:
    right = '{"order": "48-20173", "amount": 412.5, "day": "2025-03-03"}'
    with FakeEndpoint(right, require_key=True) as endpoint:
        ended = run(
            "voted.py",
            "--model",
            "openai:gpt-4.1-mini",
            "--messages",
            "1",
            "--most",
            "3",
            cwd=tmp_path,
            OPENAI_API_KEY=endpoint.api_key,
            OPENAI_BASE_URL=endpoint.base_url,
        )
    assert ended.returncode == 0, ended.stderr
    assert "test endpoint" not in ended.stdout
    assert "one answer                   100.0%" in ended.stdout
    assert endpoint.api_key not in ended.stdout + ended.stderr


def test_arguments_that_cannot_be_end_in_one_sentence(tmp_path: Path) -> None:
    for arguments in (["--most", "0"], ["--messages", "0"], ["--usd", "x"]):
        ended = run("voted.py", *arguments, cwd=tmp_path)
        assert ended.returncode != 0
        assert "Traceback" not in ended.stderr
        assert ended.stderr.startswith("ConfigurationError: ")
