"""The report's figures. Each takes what an analysis gave and draws it; colour means the optimiser, and nothing else."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from em_bench.analysis.anova import Anova
from em_bench.analysis.dynamics import Point
from em_bench.analysis.finding import Finding
from em_bench.analysis.loss_alignment import points
from em_bench.analysis.marginals import NAMES, Marginal
from em_bench.analysis.palette import colour
from em_bench.analysis.plot_style import RIGHT, legend_of, line, log_axis, numbers, stroke
from em_bench.analysis.preset_figures import INK, MARKERS, plt
from em_bench.analysis.published_values import FACTS
from em_bench.analysis.scale import Trend
from em_bench.analysis.spectra import Curve, Shape, by_kind
from em_bench.analysis.spectral_penalty import Step


def verdicts(found: Sequence[Finding]) -> plt.Figure:
    """Interval of every finding whose scale is points, with the paper's number as a cross."""
    shown = [f for f in found if f.value is not None and f.id not in ("loss-r2", "stratified-r2", "qwen3-4b", "loss-order")][::-1]
    figure, axes = plt.subplots(figsize=(6.4, 0.5 * len(shown) + 1.2))
    for y, f in enumerate(shown):
        axes.plot(numbers([f.low, f.high]), [y, y], color=INK, lw=2)
        axes.plot(numbers([f.value]), [y], "o", color=INK, ms=7)
        axes.plot(FACTS[f.id].number, y, "x", color=INK, ms=9, mew=2)
    axes.axvline(0, color=INK, lw=0.8, ls=":")
    axes.set_yticks(range(len(shown)), [f"{f.claim}\n({f.verdict})" for f in shown], fontsize=10)
    axes.set_xlabel("points")
    keys = [
        Line2D([], [], marker="o", color=INK, label="ours, 95 %"),
        Line2D([], [], marker="x", ls="", mew=2, color=INK, label="paper"),
    ]
    axes.legend(handles=keys, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def marginal(found: Marginal, paper: dict[str, float]) -> plt.Figure:
    """Misaligned rate of each level with its interval; crosses are the paper's."""
    figure, axes = plt.subplots(figsize=(6.4, 0.55 * len(found.levels) + 1.1))
    for y, level in enumerate(reversed(found.levels)):
        ink = colour(level.level) if found.axis == "recipe" else INK
        if level.rate_low is not None:
            axes.plot(numbers([level.rate_low, level.rate_high]), [y, y], color=ink, lw=2.5, alpha=0.7)
        axes.plot(level.rate, y, "o", ms=9, mec=ink, mew=1.8, mfc="none" if level.verdict else ink)
        if level.level in paper:
            axes.plot(paper[level.level], y, "x", color=INK, ms=9, mew=2)
    axes.set_yticks(range(len(found.levels)), [level.level for level in reversed(found.levels)])
    axes.set_ylim(-0.6, len(found.levels) - 0.4)
    axes.set_xlim(left=0)
    axes.set_xlabel(
        "misaligned of coherent answers (%), 95 % interval"
        + ("; hollow: broken, cannot tell" if any(v.verdict for v in found.levels) else "")
        + ("; cross: paper, other models" if any(v.level in paper for v in found.levels) else "")
    )
    return figure


def variance(found: Anova) -> plt.Figure:
    """Share of the variance of each effect."""
    figure, axes = plt.subplots(figsize=(6.4, 0.4 * len(found.effects) + 1.0))
    effects = sorted(found.effects, key=lambda e: e.eta2)
    axes.barh(
        [" x ".join(NAMES[a] for a in e.axes) for e in effects],
        [100 * e.eta2 for e in effects],
        color=INK,
        alpha=0.75,
    )
    axes.set_xlabel(f"share of the variance of the {'misaligned rate' if found.value == 'rate' else found.value} (%)")
    return figure


def loss_alignment(rows: pd.DataFrame) -> plt.Figure:
    """Mean alignment against the final narrow loss, a point a run, a line an optimiser."""
    kept = points(rows)
    figure, axes = plt.subplots(figsize=(7.2, 4.6))
    datasets = sorted(set(kept["dataset"]))
    for recipe in dict.fromkeys(kept["recipe"]):
        mine = kept[kept["recipe"] == recipe]
        for dataset, at in mine.groupby("dataset"):
            axes.plot(
                at["narrow_loss"],
                at["alignment"],
                MARKERS[datasets.index(dataset) % len(MARKERS)],
                **stroke(recipe, ms=5),
                alpha=0.75,
                ls="",
            )
        if len(mine) > 2 and mine["log_loss"].nunique() > 1:
            slope, intercept = np.polyfit(mine["log_loss"], mine["alignment"], 1)
            x = np.linspace(mine["log_loss"].min(), mine["log_loss"].max(), 50)
            axes.plot(np.exp(x), intercept + slope * x, **stroke(recipe))
    axes.set_ylim(top=103)
    log_axis(axes, "x")
    axes.set_xlabel("final held-out narrow loss (nats an answer token)")
    axes.set_ylabel("mean alignment (0-100)")
    keys = legend_of(kept["recipe"])
    keys += [
        Line2D([], [], marker=MARKERS[i % len(MARKERS)], ls="", color=INK, mfc="none", label=d) for i, d in enumerate(datasets)
    ]
    axes.legend(handles=keys, **RIGHT)
    return figure


def trajectories(path: Sequence[Point]) -> plt.Figure:
    """The path of each optimiser through loss and alignment; the ring is the end of training."""
    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    for recipe in dict.fromkeys(p.recipe for p in path):
        mine = [p for p in path if p.recipe == recipe and None not in (p.alignment, p.narrow_loss)]
        x, y = numbers(p.narrow_loss for p in mine), numbers(p.alignment for p in mine)
        axes.plot(x, y, "-o", **stroke(recipe))
        if mine:
            axes.plot(x[-1], y[-1], "o", ms=11, mfc="none", mec=colour(recipe), mew=2)
    log_axis(axes, "x")
    axes.invert_xaxis()
    axes.set_xlabel("held-out narrow loss (nats an answer token; training runs to the right)")
    axes.set_ylabel("mean alignment (0-100)")
    axes.legend(handles=legend_of(p.recipe for p in path), **RIGHT)
    return figure


def training(path: Sequence[Point]) -> plt.Figure:
    """Narrow loss, misaligned rate (hollow: of a broken model), coherence and CODE against the step."""
    figure, grid = plt.subplots(2, 2, figsize=(9, 6), sharex=True)
    quantities = (
        ("narrow_loss", "narrow loss"),
        ("rate", "misaligned of coherent (%); hollow: broken"),
        ("coherent", "coherent (%)"),
        ("code", "CODE (%)"),
    )
    for axes, (name, label) in zip(grid.flat, quantities, strict=True):
        for recipe in dict.fromkeys(p.recipe for p in path):
            mine = [p for p in path if p.recipe == recipe and getattr(p, name) is not None]
            hollow = [name == "rate" and p.verdict is not None for p in mine]
            line(axes, [p.step for p in mine], [getattr(p, name) for p in mine], hollow, **stroke(recipe))
        log_axis(axes, "x")
        axes.set_title(label, fontsize=11)
        if name != "narrow_loss":
            axes.set_ylim(-3, 103)
    for axes in grid[1]:
        axes.set_xlabel("step")
    figure.legend(handles=legend_of(p.recipe for p in path), loc="center left", bbox_to_anchor=(0.92, 0.5))
    return figure


def spectra(curves: Sequence[Curve]) -> plt.Figure:
    """Singular values by rank, a panel an optimiser, fainter dashes the larger lambda."""
    recipes = list(dict.fromkeys(c.recipe for c in curves))
    figure, grid = plt.subplots(1, len(recipes), figsize=(2.4 * len(recipes), 3.2), sharey=True, squeeze=False)
    values = sorted({c.spectral_lambda for c in curves})
    styles = {v: ("-", "--", "-.", ":")[min(i, 3)] for i, v in enumerate(values)}
    for axes, recipe in zip(grid[0], recipes, strict=True):
        for c in (c for c in curves if c.recipe == recipe):
            index = range(1, len(c.mean) + 1)
            axes.plot(index, c.mean, styles[c.spectral_lambda], color=colour(recipe), lw=1.8)
            if c.spectral_lambda in (values[0], values[-1]):
                axes.fill_between(index, c.lower_quartile, c.upper_quartile, color=colour(recipe), alpha=0.15, lw=0)
        axes.set_title(recipe)
        axes.set_xlabel("index")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_ylim(0, 1.04)
    grid[0][0].set_ylabel("singular value / largest")
    grid[0][-1].legend(handles=[Line2D([], [], ls=styles[v], color=INK, label=f"λ {v:g}") for v in values], **RIGHT)
    return figure


def shapes(found: Sequence[Shape]) -> plt.Figure:
    """Four spectral quantities over the steps of training."""
    figure, grid = plt.subplots(2, 2, figsize=(9, 6), sharex=True)
    quantities = (
        ("stable_rank", "stable rank"),
        ("entropy", "entropy (nats)"),
        ("condition_number", "condition number"),
        ("frobenius_nuclear", "F/N"),
    )
    for axes, (name, label) in zip(grid.flat, quantities, strict=True):
        for recipe in dict.fromkeys(s.recipe for s in found):
            mine = [s for s in found if s.recipe == recipe]
            axes.plot(
                [int(s.group.removeprefix("step ")) for s in mine],
                [getattr(s, name) for s in mine],
                "-o",
                **stroke(recipe),
            )
        log_axis(axes, "x")
        axes.set_title(label, fontsize=11)
    log_axis(grid[1][0], "y")
    for axes in grid[1]:
        axes.set_xlabel("step")
    figure.legend(handles=legend_of(s.recipe for s in found), loc="center left", bbox_to_anchor=(0.92, 0.5))
    return figure


def places(found: Sequence[Shape]) -> plt.Figure:
    """Flatness gap of each projection and depth."""
    groups = sorted({s.group for s in found}, key=by_kind)
    figure, axes = plt.subplots(figsize=(7.2, 0.38 * len(groups) + 1.2))
    for s in found:
        axes.plot(s.flatness_gap, len(groups) - 1 - groups.index(s.group), "o", **stroke(s.recipe, ms=6), alpha=0.85)
    axes.set_yticks(range(len(groups)), groups[::-1])
    axes.grid(axis="y", color=INK, alpha=0.15)
    axes.set_xlabel("F/N − 1/√r (0 is flat)")
    axes.legend(handles=legend_of(s.recipe for s in found), **RIGHT)
    return figure


def pareto(path: Sequence[Step]) -> plt.Figure:
    """Alignment against narrow loss along each lambda path; large where no other lambda is better in both, hollow where the model is broken."""
    figure, axes = plt.subplots(figsize=(7.2, 4.6))
    for recipe in dict.fromkeys(s.recipe for s in path):
        mine = [s for s in path if s.recipe == recipe and None not in (s.alignment, s.narrow_loss)]
        x, y = numbers(s.narrow_loss for s in mine), numbers(s.alignment for s in mine)
        axes.plot(x, y, "-", **stroke(recipe, lw=1.4))
        for s, *at in zip(mine, x, y, strict=True):
            face = "none" if s.verdict else colour(recipe)
            size = stroke(recipe, ms=9 if s.efficient else 5)["ms"]
            axes.plot(*at, "o", ms=size, mec=colour(recipe), mew=1.8, mfc=face)
            if s in (mine[0], mine[-1]):
                axes.annotate(
                    f"λ {s.spectral_lambda:g}",
                    (at[0], at[1]),
                    xytext=(0, 9 if s is mine[-1] else -11),
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if s is mine[-1] else "top",
                    fontsize=9,
                )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("narrow loss (nats an answer token)")
    axes.set_ylabel("mean alignment (0-100)")
    keys = legend_of(s.recipe for s in path)
    keys += [
        Line2D([], [], marker="o", ls="", color=INK, ms=size, mfc=face, label=t)
        for size, face, t in ((9, INK, "efficient"), (5, INK, "beaten"), (5, "none", "broken: cannot tell"))
    ]
    axes.legend(handles=keys, **RIGHT)
    return figure


def scale(found: Trend) -> plt.Figure:
    """Misaligned rate against the number of parameters, a line a family; hollow: of a broken model."""
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    families = list(dict.fromkeys(m.family for m in found.models))
    for i, family in enumerate(families):
        mine = [m for m in found.models if m.family == family]
        style: dict[str, Any] = {
            "marker": MARKERS[i % len(MARKERS)],
            "ls": ("-", "--", ":")[i % 3],
            "color": colour("adam"),
            "ms": 8,
        }
        x = [m.parameters * (1 + 0.03 * (i - 1)) for m in mine]  # side by side, not on top of each other
        line(axes, x, numbers(m.rate for m in mine).tolist(), [m.verdict is not None for m in mine], label=family, **style)
        for at, m in zip(x, mine, strict=True):
            if m.low is not None:
                axes.plot([at, at], numbers([m.low, m.high]), color=colour("adam"), lw=1, alpha=0.6)
    axes.set_ylim(bottom=0)
    log_axis(axes, "x")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("parameters (log scale)")
    axes.set_ylabel("misaligned rate under Adam (%)")
    axes.legend(**RIGHT)
    return figure
