"""How pictures for the docs are drawn: SVG on white, so that they read the same on a dark page, and the same bytes for
the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["BLUE", "GREY", "ORANGE", "figure_of", "save"]

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#666666"


def figure_of(rows: int, columns: int, *, width: float, height: float, **more: Any) -> tuple[Any, Any]:
    """A figure and its axes. Wants matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # words stay words: they can be searched and read aloud
    matplotlib.rcParams["font.size"] = 9
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained", **more)
    for each in figure.axes:
        each.grid(alpha=0.3)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Any, path: Path, title: str) -> None:
    """Write it under a title."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = title
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
    pyplot.close(figure)
