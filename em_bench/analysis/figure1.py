"""Figure 1 of the paper and ours: alignment against ln training loss, at the end of training (left) and along it (right).

The paper's points are read off its figure (`baselines/paper`). Where our runs are of its model, both stand on the same axes, the
paper's hollow and pale; where they are not, the paper has panels of its own above ours.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from em_bench.analysis.dynamics import Point
from em_bench.analysis.loss_alignment import TRAIN, points
from em_bench.analysis.missing import Missing
from em_bench.analysis.palette import colour
from em_bench.analysis.plot_style import RIGHT, legend_of, stroke
from em_bench.analysis.preset_figures import INK, plt
from em_bench.analysis.published_values import FIGURE_MODEL, figure1_ends, figure1_points

LABEL = "ln training loss"
BATCHES = {2: "o", 32: "s"}


def start(ended: pd.DataFrame, bases: pd.DataFrame) -> tuple[float, float] | None:
    """Mean ln training loss of the first batches, and alignment of the base; None where one is not known."""
    first = [c.trajectory[0].train_loss for c in ended["cell"] if c.trajectory]
    mine = bases[bases["model"].isin(set(ended["model"]))]["alignment"]
    if not first or None in first or mine.empty or not np.isfinite(mine).all():
        return None
    return float(np.mean(np.log(first))), float(mine.mean())


def draw(rows: pd.DataFrame, path: Sequence[Point] | Missing, base: tuple[float, float] | None) -> plt.Figure:
    """`rows` are the runs of the regression, `path` the dynamics study followed, `base` its start."""
    kept = points(rows, TRAIN)
    path = () if isinstance(path, Missing) else [p for p in path if None not in (p.log_train_loss, p.alignment)]
    same = set(kept["model"]) == {FIGURE_MODEL}
    figure, grid = plt.subplots(1 if same else 2, 2, figsize=(11, 4.6 if same else 8.8), squeeze=False)
    theirs, ours = grid[0], grid[-1]
    _papers(theirs, pale=same)
    _lines(ours[0], kept, hollow=False)
    for recipe in dict.fromkeys(p.recipe for p in path):
        mine = [p for p in path if p.recipe == recipe]
        ours[1].plot([p.log_train_loss for p in mine], [p.alignment for p in mine], "-", marker="o", **stroke(recipe))
        ours[1].plot(mine[-1].log_train_loss, mine[-1].alignment, "o", ms=11, mfc="none", mec=colour(recipe), mew=2)
    if base:
        ours[1].plot(*base, "*", color=INK, ms=13)
    whose = (
        f"ours and, hollow, the paper's, {FIGURE_MODEL}" if same else f"ours, {', '.join(sorted(set(kept['model']))) or 'no run'}"
    )
    for axes, which in zip(ours, ("end of training", "over training"), strict=True):
        axes.set_title(f"{which}: {whose}", fontsize=10)
    if not same:
        for axes, which in zip(theirs, ("end of training", "ends of two epochs"), strict=True):
            axes.set_title(f"{which}: the paper, {FIGURE_MODEL}, read off the figure", fontsize=10)
    for axes in grid.flat:
        axes.set_xlabel(LABEL)
        axes.set_ylim(bottom=min(30.0, axes.get_ylim()[0]), top=102)
        axes.set_ylabel("mean alignment (0-100)")
        axes.invert_xaxis()  # training runs to the right in all four, as losses fall
    both = dict.fromkeys([*figure1_points()["recipe"], *kept["recipe"]])
    keys = legend_of(both) + [
        Line2D([], [], marker=m, ls="", color=INK, mfc="none", label=f"batch {b}") for b, m in BATCHES.items()
    ]
    keys.append(Line2D([], [], marker="*", ls="", ms=11, color=INK, label="base"))
    figure.tight_layout()
    grid[0][-1].legend(handles=keys, **RIGHT)
    return figure


def _papers(axes: Sequence[plt.Axes], pale: bool) -> None:
    _lines(axes[0], points(figure1_points(), TRAIN), hollow=True, alpha=0.45 if pale else 1.0)
    ends = figure1_ends().set_index("recipe")
    for recipe, end in ends.drop(index="base").iterrows():
        x = [ends.loc["base", "log_train_loss"], end["log_train_loss"]]
        y = [ends.loc["base", "alignment"], end["alignment"]]
        axes[1].plot(x, y, ":", color=colour(recipe), lw=1.2, alpha=0.6)  # the ends are known, the way between them is not
        axes[1].plot(x[1:], y[1:], "o", ms=11, mfc="none", mec=colour(recipe), mew=2, alpha=0.45 if pale else 1.0)
    base = ends.loc["base"]
    axes[1].plot(base["log_train_loss"], base["alignment"], "*", color=INK, ms=13, mfc="none")


def _lines(axes: plt.Axes, kept: pd.DataFrame, hollow: bool, alpha: float = 0.9) -> None:
    """A point a run, shaped by its batch size, and a line an optimiser over its own losses."""
    for recipe in dict.fromkeys(kept["recipe"]):
        mine = kept[kept["recipe"] == recipe]
        ink = colour(recipe)
        for batch, at in mine.groupby("batch_size"):
            marker = BATCHES.get(batch, "D")
            axes.plot(
                at["log_loss"], at["alignment"], marker, ms=6, mec=ink, mfc="none" if hollow else ink, mew=1.3, alpha=alpha, ls=""
            )
        if len(mine) > 2 and mine["log_loss"].nunique() > 1:
            slope, intercept = np.polyfit(mine["log_loss"], mine["alignment"], 1)
            ends = np.array([mine["log_loss"].min(), mine["log_loss"].max()])
            axes.plot(ends, intercept + slope * ends, "--" if hollow else "-", color=ink, lw=1.6, alpha=alpha)
