"""Pictures of how a recipe learned: what it got right against training time, and against steps. It knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Points", "draw"]

Points = Sequence[tuple[float, float]]
"""Pairs of (minutes or steps, share from 0 to 1)."""

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:gray", "tab:olive")


def draw(path: Path, minutes: Mapping[str, Points], steps: Mapping[str, Points], *, what: str, machine: str) -> int:
    """Writes an SVG with two panels that share names and colours. Returns its size in bytes.

    ``what``: what is counted as right; ``machine``: what the minutes were spent on. Wants matplotlib.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "curve"  # the same numbers give the same file
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    names = list(dict.fromkeys([*minutes, *steps]))
    for name, colour in zip(names, COLOURS, strict=False):
        for side, points in ((left, minutes.get(name, ())), (right, steps.get(name, ()))):
            if points:
                x, y = zip(*points, strict=True)
                marker = "." if side is left else None
                side.plot(x, [100 * share for share in y], color=colour, label=name, marker=marker, linewidth=1.2)
    left.set(xlabel=f"minutes of training ({machine})", ylabel=f"{what} (%)", ylim=(-2, 103))
    right.set(xlabel="steps (log)", xscale="log", ylim=(-2, 103))
    for side in (left, right):
        side.grid(alpha=0.3)
        side.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize="small", loc="upper left")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path.stat().st_size
