"""The figures of a page, as SVG text that takes its ink from the page (light or dark)."""

import io
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from em_bench.analysis.palette import colour
from em_bench.analysis.summary import row_of
from em_bench.records import CellResult, Results

INK = "#123456"  # a colour that no figure uses otherwise: replaced by currentColor in the SVG
WITHOUT, WITH_TERM = 8.0, 4.5  # size of a point by the spectral term
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE: dict[Any, Any] = {  # matplotlib types each name apart
    "font.size": 11,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "em_bench",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}


def svg(draw: Callable[[], plt.Figure], label: str) -> str:
    """The SVG element of a figure with its accessible name; text stays text."""
    with plt.rc_context(STYLE):
        figure = draw()
        out = io.StringIO()
        figure.savefig(out, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace("'DejaVu Sans'", "inherit")
    # As wide as drawn and no wider, so that letters have one size in all figures. Where the page is narrower so are they,
    # down to letters of two thirds of that size; then they scroll.
    said = re.search(r'width="([\d.]+)pt"', text)
    assert said is not None  # matplotlib's figures say it
    width = float(said[1])
    style = f'style="max-width: {width:.0f}pt; min-width: {0.67 * width:.0f}pt"'
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', style, text, count=1)
    escaped = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{escaped}"', 1)


def loss_alignment(results: Results) -> plt.Figure:
    """Misaligned rate against held-out narrow loss, a point an adapter; small where the spectral term is on, hollow where the model is broken."""
    figure, axes = plt.subplots(figsize=(7.2, 4.6))
    datasets = sorted({c.dataset for c in results.cells if c.dataset})
    for cell in results.cells:
        e = cell.score.overall.misaligned_rate
        if cell.recipe is None or cell.dataset is None or e.value is None or cell.narrow_loss is None:
            continue
        ink = colour(cell.recipe)
        if e.low is not None and e.high is not None:
            axes.plot([cell.narrow_loss] * 2, [100 * e.low, 100 * e.high], color=ink, lw=0.9, alpha=0.45)
        axes.plot(
            cell.narrow_loss,
            100 * e.value,
            MARKERS[datasets.index(cell.dataset) % len(MARKERS)],
            ms=WITH_TERM if cell.spectral_lambda else WITHOUT,
            mec=ink,
            mew=1.6,
            mfc="none" if row_of([cell]).verdict else ink,
        )
    axes.set_xlabel("held-out narrow loss (nats an answer token)")
    axes.set_ylabel("misaligned of coherent answers (%)")
    axes.set_ylim(bottom=-2)
    keys = [Line2D([], [], marker="o", ls="", color=colour(r), label=r) for r in _recipes(results)]
    keys += [
        Line2D([], [], marker=MARKERS[i % len(MARKERS)], ls="", color=INK, mfc="none", label=d) for i, d in enumerate(datasets)
    ]
    keys += [
        Line2D([], [], marker="o", ls="", color=INK, ms=size, label=f"lambda {what}")
        for size, what in ((WITHOUT, "0"), (WITH_TERM, "> 0"))
    ]
    keys.append(Line2D([], [], marker="o", ls="", color=INK, mfc="none", label="broken: cannot tell"))
    axes.legend(handles=keys, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def spectra(results: Results) -> plt.Figure:
    """Singular values over the layer's largest, by rank: mean and quartiles over layers, averaged over datasets."""
    recipes = _recipes(results)
    figure, grid = plt.subplots(1, len(recipes), figsize=(2.4 * len(recipes), 3.0), sharey=True, squeeze=False)
    for axes, recipe in zip(grid[0], recipes, strict=True):
        groups: dict[bool, list[CellResult]] = defaultdict(list)
        for c in results.cells:
            if c.recipe == recipe and c.spectrum:
                groups[bool(c.spectral_lambda)].append(c)
        for on, cells in sorted(groups.items()):
            mean, low, high = (
                _average([getattr(c.spectrum, f) for c in cells]) for f in ("mean", "lower_quartile", "upper_quartile")
            )
            index = range(1, len(mean) + 1)
            axes.plot(index, mean, "--" if on else "-", color=colour(recipe), lw=2)
            axes.fill_between(index, low, high, color=colour(recipe), alpha=0.15, lw=0)
        axes.set_title(recipe)
        axes.set_xlabel("index")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_ylim(0, 1.04)
    grid[0][0].set_ylabel("singular value / largest")
    keys = [Line2D([], [], ls=s, color=INK, label=t) for s, t in (("-", "lambda 0"), ("--", "lambda > 0"))]
    grid[0][-1].legend(handles=keys, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def rates(results: Results) -> plt.Figure:
    """Misaligned rate of each optimiser, pooled over its cells, with and without the spectral term."""
    recipes = _recipes(results)
    figure, axes = plt.subplots(figsize=(7.2, 0.62 * len(recipes) + 1.2))
    for i, recipe in enumerate(reversed(recipes)):
        for on in (False, True):
            cells = [c for c in results.cells if c.recipe == recipe and bool(c.spectral_lambda) == on]
            row = row_of(cells) if cells else None
            if row is None or (e := row.misaligned_rate).value is None:
                continue
            y = i + (-0.16 if on else 0.16)
            if e.low is not None and e.high is not None:
                axes.plot([100 * e.low, 100 * e.high], [y, y], color=colour(recipe), lw=2, alpha=0.6)
            face = "none" if row.verdict else colour(recipe)
            axes.plot(100 * e.value, y, "s" if on else "o", ms=8, mec=colour(recipe), mew=1.8, mfc=face)
    axes.set_yticks(range(len(recipes)), list(reversed(recipes)))
    axes.set_xlim(left=0)
    axes.set_xlabel("misaligned of coherent answers (%), 95 % interval; square: lambda > 0; hollow: broken, cannot tell")
    return figure


def _recipes(results: Results) -> list[str]:
    return list(dict.fromkeys(c.recipe for c in results.cells if c.recipe))


def _average(curves: Sequence[Sequence[float]]) -> list[float]:
    shortest = min(len(c) for c in curves)
    return [sum(c[i] for c in curves) / len(curves) for i in range(shortest)]
