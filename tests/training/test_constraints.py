"""The recipe of the bundled `constraints`: needs PyTorch, and learns for some seconds."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specialists import OnnxModel  # noqa: E402
from specialists.training import constraints as recipe  # noqa: E402
from specialists.training import constraints_pools as pools  # noqa: E402
from specialists.training import constraints_problems as problems  # noqa: E402
from specialists.training.constraints_step import INPUTS, WIDTH, Step, export, parameters  # noqa: E402
from specialists.zoo.constraints import solver  # noqa: E402
from specialists.zoo.constraints.problem import Problem  # noqa: E402


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, few problems, and little that is looked at on the way."""
    torch.set_num_threads(1)
    monkeypatch.setattr(recipe, "RANDOM_BLOCKS", range(1, 2))
    monkeypatch.setattr(recipe, "HARD_BLOCKS", range(2, 2))
    monkeypatch.setattr(recipe, "BLOCK", 12)
    monkeypatch.setattr(recipe, "VALID", 4)
    monkeypatch.setattr(recipe, "REPORT_SECONDS", 3.0)
    monkeypatch.setattr(pools, "MADE", 4)


def _problems() -> list[Problem]:
    rng = random.Random(3)
    return [
        problems.sudoku(4, rng).problem,
        problems.from_clues(*problems.random_sudoku(rng)[:2]).problem,
        problems.latin_square(5, 0.4, rng).problem,
        problems.colouring(12, 3, 0.3, rng, 0.2, 0.3).problem,
    ]


@pytest.mark.parametrize("number", range(4))
def test_the_graph_says_what_the_network_says(tmp_path: Path, number: int) -> None:
    torch.manual_seed(1)
    net = Step()
    export(net, tmp_path / "model.onnx")
    rows = {name: torch.from_numpy(array).repeat(3, 1, 1) for name, array in _problems()[number].arrays().items()}
    rows["carry"] = torch.randn(*rows["allowed"].shape, WIDTH)
    with torch.no_grad():
        thought = net(*(rows[name] for name in INPUTS))
    out = OnnxModel(tmp_path / "model.onnx").run_sync(**{name: tensor.numpy() for name, tensor in rows.items()})
    for name, tensor in zip(("logits", "halt", "doubt", "next_carry"), thought, strict=True):
        np.testing.assert_allclose(out[name], tensor.numpy(), atol=2e-4)


def test_the_bundled_graph_is_of_this_network() -> None:
    shapes = {entry.name: entry.shape for entry in solver.model.session.get_inputs()}
    assert shapes["carry"][-1] == WIDTH
    assert f"parameters = {parameters(Step())}\n" in Path(solver.__file__).with_name("specialist.toml").read_text()


@pytest.mark.parametrize("number", range(4))
def test_names_of_variables_and_values_do_not_matter(number: int) -> None:
    torch.manual_seed(2)
    net, problem = Step(), _problems()[number]
    rows = {name: torch.from_numpy(array) for name, array in problem.arrays().items()}
    carry = torch.randn(*rows["allowed"].shape, WIDTH)
    order, names = torch.randperm(problem.variables), torch.randperm(problem.values)
    with torch.no_grad():
        one = net(rows["allowed"], rows["groups"], rows["overlaps"], carry)
        other = net(
            rows["allowed"][:, order][:, :, names],
            rows["groups"][:, :, order],
            rows["overlaps"][:, :, order],
            carry[:, order][:, :, names],
        )
    torch.testing.assert_close(one.logits[:, order][:, :, names], other.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.halt, other.halt, atol=1e-4, rtol=1e-4)


def test_a_conflict_costs_and_a_solution_does_not() -> None:
    batch = pools.Pool("timetable", [problems.colouring(12, 3, 0.3, random.Random(0))], 1, 1.0, 0, "cpu").batch
    right = 40.0 * torch.nn.functional.one_hot(batch.solution, 3)
    same = torch.zeros_like(right)
    same[:, :, 0] = 40.0

    def cost(logits: torch.Tensor) -> float:
        thought = recipe.Thought(logits, torch.zeros(1), torch.zeros(1, 12), batch.carry)
        return float(recipe.surprise(thought, batch, recipe.BOLDNESS))

    assert cost(right) < 1e-3 < 0.5 < cost(same)
    assert not batch.wrong(batch.solution).any()
    assert batch.wrong(torch.zeros_like(batch.solution)).any()


def _training(threads: int) -> recipe.Training:
    rng = random.Random(0)
    made = [problems.sudoku(4, rng) for _ in range(40)]
    return recipe.Training(pools.Mixture([pools.Pool("4x4", made, 16, 1.0, 0, "cpu")], 0), 0, "cpu", threads)


def test_it_learns_in_seconds() -> None:
    training = _training(1)
    losses = [training.update(0.0) for _ in range(120)]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:10])


def test_two_threads_learn_the_same_as_one() -> None:
    one, two = _training(1), _training(2)
    losses = [(one.update(0.0), two.update(0.0)) for _ in range(3)]
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-3)
    for mine, other in zip(one.net.parameters(), two.net.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=2e-3, rtol=0.05)


def test_a_run_leaves_a_graph_and_is_gone_on_with_after_a_signal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    timer = threading.Timer(9.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(SystemExit) as stop:
            recipe.train(tmp_path, 2.0, 0, False, [], 1)
        assert stop.value.code == 130
        assert "--resume" in capsys.readouterr().out
        state = torch.load(tmp_path / "last.pt")
        assert state["updates"] >= 1
        recipe.train(tmp_path, (state["spent"] + 6.0) / 60, 0, True, [], 1)
    finally:
        timer.cancel()
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert torch.load(tmp_path / "last.pt")["updates"] > state["updates"]
    assert json.loads((tmp_path / "curve.json").read_text())[0]["updates"] > 0
    assert (tmp_path / "model.onnx").stat().st_size < 2_000_000
