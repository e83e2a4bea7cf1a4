"""The figures of a page, as SVG text that takes its ink from the page (light or dark)."""

import hashlib
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
from em_bench.analysis.summary import matched, row_of, summary
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
    return _ids_of_its_own(text, label).replace("<svg", f'<svg role="img" aria-label="{escaped}"', 1)


def _ids_of_its_own(text: str, label: str) -> str:
    """Names of marks are kept where they are used, and are then the figure's own: a page holds several figures."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    own = hashlib.sha256(label.encode()).hexdigest()[:8]
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{own}-{m[1]}"' if m[1] in used else "", text)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{own}-", text)


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
    """Misaligned share of all asked of each optimiser, with and without the spectral term: at each narrow loss, and at the end of training."""
    recipes, views = _recipes(results), [*matched(results), summary(results)]
    figure, grid = plt.subplots(
        1, len(views), figsize=(3.6 * len(views) + 1, 0.5 * len(recipes) + 1.4), sharey=True, sharex=True, squeeze=False
    )
    for axes, rows in zip(grid[0], views, strict=True):
        for row in rows:
            e = row.misaligned_of_asked
            if row.recipe is None or row.good or e.value is None:
                continue
            y = len(recipes) - 1 - recipes.index(row.recipe) + (-0.16 if row.spectral_lambda else 0.16)
            ink = colour(row.recipe)
            if e.low is not None and e.high is not None:
                axes.plot([100 * e.low, 100 * e.high], [y, y], color=ink, lw=2, alpha=0.6)
            axes.plot(
                100 * e.value, y, "s" if row.spectral_lambda else "o", ms=8, mec=ink, mew=1.8, mfc="none" if row.verdict else ink
            )
        axes.set_title(rows[0].at if len(rows) else "")
        axes.set_xlim(left=0)
    grid[0][0].set_yticks(range(len(recipes)), list(reversed(recipes)))
    figure.supxlabel("misaligned of all asked (%), 95 % interval; square: lambda > 0; hollow: cannot tell", fontsize=11)
    figure.tight_layout()
    return figure


def _recipes(results: Results) -> list[str]:
    return list(dict.fromkeys(c.recipe for c in results.cells if c.recipe))


def _average(curves: Sequence[Sequence[float]]) -> list[float]:
    shortest = min(len(c) for c in curves)
    return [sum(c[i] for c in curves) / len(curves) for i in range(shortest)]
