"""The recipe of the bundled `maze`: needs PyTorch, and learns for some seconds."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specialists import OnnxModel  # noqa: E402
from specialists.training import maze as recipe  # noqa: E402
from specialists.training import maze_grids as grids  # noqa: E402
from specialists.training.maze_step import SURE, WIDTH, Step, export, parameters  # noqa: E402
from specialists.zoo.maze import solver  # noqa: E402

CHECKED, FAR = recipe.CHECKED, recipe.FAR


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, small mazes, and little that is looked at on the way."""
    torch.set_num_threads(1)
    monkeypatch.setattr(recipe, "SIZES", ((7, 32), (10, 12)))
    monkeypatch.setattr(recipe, "CHECKED", {"15x15": (6, 1, 4), "30x30, path > 110": (7, 3, 4)})
    monkeypatch.setattr(recipe, "FAR", {"60x60, path > 150": (12, 5, 2)})


@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 5, 5), (3, 9, 14), (2, 31, 30)])
def test_the_graph_says_what_the_network_says(tmp_path: Path, n: int, rows: int, columns: int) -> None:
    torch.manual_seed(1)
    net = Step()
    with torch.no_grad():
        net.head.weight *= 20  # so that some cells are sure
    export(net, tmp_path / "model.onnx")
    model = OnnxModel(tmp_path / "model.onnx")
    maze = (torch.rand(n, 3, rows, columns) < 0.5).float()
    carry = torch.randn(n, WIDTH, rows, columns)
    with torch.no_grad():
        moves, halt, known, after = net(maze, carry)
    out = model.run_sync(maze=maze.numpy(), carry=carry.numpy())
    np.testing.assert_allclose(out["next_carry"], after.numpy(), atol=1e-5)
    np.testing.assert_allclose(out["halt"], halt.numpy(), atol=1e-3)
    clear = ((moves.topk(2, 1).values.diff(dim=1)[:, 0].abs() > 1e-3) & ((known - SURE).abs() > 1e-3)).numpy()
    said = torch.where(known > SURE, moves.argmax(1), -1).numpy()
    np.testing.assert_array_equal(out["moves"][clear], said[clear])
    assert (said >= 0).any()
    assert (said < 0).any()


def test_the_bundled_graph_is_of_this_network() -> None:
    shapes = {entry.name: entry.shape for entry in solver.model.session.get_inputs()}
    assert shapes["carry"][1] == WIDTH
    assert recipe.NOISE == solver.NOISE
    assert grids.SIDES == solver.MOVES
    assert f"parameters = {parameters(Step())}\n" in Path(solver.__file__).with_name("specialist.toml").read_text()


def test_the_right_moves_are_those_that_shorten_the_way() -> None:
    lot = recipe.draw(random.Random(0), 12, 11)
    for maze, distance, good in zip(*(each.numpy() for each in lot), strict=True):
        assert maze[1].sum() == maze[2].sum() == 1
        assert distance[maze[2] == 1] == 0
        for y, x in np.argwhere(distance >= 0):
            near = [(y + dy, x + dx) for dy, dx in grids.SIDES]
            inside = [0 <= v < 11 and 0 <= u < 11 for v, u in near]
            closer = [ok and distance[cell] == distance[y, x] - 1 >= 0 for ok, cell in zip(inside, near, strict=True)]
            assert closer == good[:, y, x].tolist()
            assert any(closer) == (distance[y, x] > 0)
        assert not good[:, distance < 0].any()


def test_it_learns_in_seconds() -> None:
    training = recipe.Training(0, torch.device("cpu"))
    losses = [training.update(0.0) for _ in range(150)]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:10])


def test_a_stopped_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "REPORTS", ((float("inf"), 0.0),))
    update = recipe.Training.update
    stop_at = 6

    def stopping(self: Any, progress: float) -> float:
        loss: float = update(self, progress)
        if self.updates == stop_at:
            signal.raise_signal(signal.SIGTERM)
        return loss

    monkeypatch.setattr(recipe.Training, "update", stopping)
    before = signal.getsignal(signal.SIGTERM)
    recipe.train(tmp_path, 5.0, 0, False)
    assert signal.getsignal(signal.SIGTERM) is before
    assert "stopped after" in capsys.readouterr().out
    curve = json.loads((tmp_path / "curve.json").read_text())["training"]
    assert [point["updates"] for point in curve] == [1, 2, 3, 4, 5, 6]
    saved = torch.load(tmp_path / "last.pt")
    stop_at = 9
    recipe.train(tmp_path, 5.0, 0, True)
    longer = json.loads((tmp_path / "curve.json").read_text())["training"]
    assert longer[:6] == curve
    assert [point["updates"] for point in longer[6:]] == [7, 8, 9]
    assert longer[-1]["minutes"] >= curve[-1]["minutes"]
    assert torch.load(tmp_path / "last.pt")["spent"] > saved["spent"]
    with pytest.raises(SystemExit, match="seed 0"):
        recipe.train(tmp_path, 5.0, 1, True)


def test_a_finished_run_leaves_a_model_its_curve_and_a_picture(tmp_path: Path) -> None:
    recipe.train(tmp_path, 0.02, 3, False)
    model = OnnxModel(tmp_path / "model.onnx")
    assert {entry.name for entry in model.session.get_outputs()} == {"moves", "halt", "next_carry"}
    with np.load(tmp_path / "recorded.npz") as recorded:
        carry = recorded["carry"]
        for _ in range(recipe.RECORDED):
            carry = model.run_sync(maze=recorded["maze"], carry=carry)["next_carry"]
        np.testing.assert_allclose(carry, recorded["next_carry"], atol=1e-4)
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert set(curve["steps"]) == {*recipe.CHECKED, *recipe.FAR}
    recipe.draw_curve(tmp_path)
    assert (tmp_path / "curve.svg").stat().st_size < 60_000


def test_what_is_kept_aside_can_be_made_and_is_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "CHECKED", CHECKED)
    monkeypatch.setattr(recipe, "FAR", FAR)
    for seed in (0, 1):
        found = recipe.kept_aside(seed) | recipe.far_aside(seed)
        for name, (side, least, count) in (CHECKED | FAR).items():
            assert len(found[name]) == count
            assert all(len(grid) == len(grid[0]) == side and length >= least for grid, length in found[name])


def test_the_same_seed_gives_the_same_network() -> None:
    def made() -> list[float]:
        training = recipe.Training(5, torch.device("cpu"))
        return [training.update(0.1) for _ in range(5)]

    assert made() == made()


@pytest.mark.parametrize("untrained", [False, True])
def test_measuring_tells_trained_from_untrained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], untrained: bool
) -> None:
    model = solver.model.path
    if untrained:
        model = tmp_path / "model.onnx"
        torch.manual_seed(0)
        export(Step(), model)
    recipe.evaluate(model, "braided", 9, 4, 6, True, 0)
    out = capsys.readouterr().out
    share = "0 of 6 = 0.00%" if untrained else "6 of 6 = 100.00%"
    assert f"one rollout {share}" in out
    assert f"64 rollouts {share}" in out
    assert "wrong and accepted 0" in out
