"""What the report's figures share: how they are saved, log axes, and how an optimiser is drawn."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from em_bench.analysis.palette import colour
from em_bench.analysis.preset_figures import STYLE, plt
from em_bench.files import atomic_file

RIGHT: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}


def save(draw: Callable[[], plt.Figure], stem: Path) -> None:
    """Write stem.svg and stem.png, on white, with readable letters."""
    endings: dict[str, dict[str, Any]] = {
        "svg": {"metadata": {"Date": None, "Creator": None}},
        "png": {"dpi": 150, "metadata": {"Software": None}},
    }
    with plt.rc_context(STYLE | {"figure.facecolor": "white"}):
        figure = draw()
        for ending, more in endings.items():
            with atomic_file(stem.with_suffix(f".{ending}"), "wb") as f:
                figure.savefig(f, format=ending, bbox_inches="tight", facecolor="white", **more)
        plt.close(figure)


def numbers(values: Iterable[float | None]) -> np.ndarray:
    """What matplotlib makes of values of which some are not there."""
    return np.array([np.nan if v is None else v for v in values], float)


def log_axis(axes: plt.Axes, which: str) -> None:
    """A log axis with plain numbers at powers of ten, and between them where there is room."""
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    span = high / max(low, 1e-12)
    axis.set_major_locator(
        LogLocator(subs=(1, 1.2, 1.5, 2, 3, 4, 6, 8) if span < 5 else (1, 2, 5) if span < 100 else (1,), numticks=12)
    )
    axis.set_major_formatter(LogFormatterSciNotation() if span > 1e5 else "{x:g}")
    axis.set_minor_formatter(NullFormatter())


def stroke(recipe: str, lw: float = 1.8, ms: float = 4) -> dict:
    """Colour and weight of an optimiser. AdamW often covers Adam, which is drawn before it: Adam is drawn wider."""
    under = recipe == "adam"
    return {"color": colour(recipe), "lw": lw + 2.4 * under, "ms": ms + 3.5 * under}


def line(axes: plt.Axes, x: Sequence[float], y: Sequence[float], hollow: Sequence[bool], marker: str = "o", **style) -> None:
    """A line and its points, some of them hollow: models of which nothing is said."""
    axes.plot(x, y, marker=marker, markevery=[i for i, h in enumerate(hollow) if not h], **style)
    broken = [(a, b) for a, b, h in zip(x, y, hollow, strict=True) if h]
    if broken:
        axes.plot(*zip(*broken, strict=True), marker, color=style["color"], ms=style["ms"], mfc="none")


def legend_of(recipes: Iterable[str]) -> list[Line2D]:
    return [Line2D([], [], marker="o", color=colour(r), lw=2, label=r) for r in dict.fromkeys(recipes)]
