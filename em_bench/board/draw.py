"""The board's drawings, as SVG markup: intervals in the table; loss and misalignment, spectra and loss curves, by the report's own library."""

import re
from collections.abc import Sequence

from markupsafe import Markup

from em_bench.analysis.palette import colour
from em_bench.board.entry_score import EntryScore
from em_bench.board.row import BoardRow
from em_bench.board.seed_table import Interval
from em_bench.board.submission import Submission
from em_bench.board.views import View
from em_bench.scoring import cannot_tell

BAR, HEIGHT = 54, 18
PLACES: tuple[tuple[View, str], ...] = (
    ("early", "v"),
    ("upper", "o"),
    ("lower", "s"),
    ("end", "x"),
)  # of the scatter, with its markers


def tint(submission: Submission | None) -> str:
    """The colour of an entry's optimiser class, the same in every figure of the house."""
    library = submission.optimizer.library if submission else None
    return colour(library.rsplit(".", 1)[-1].lower() if library else "code")


def bar(interval: Interval | None, low: float, high: float, fill: str, hollow: bool = False, square: bool = False) -> Markup:
    """An interval and its value on the scale from `low` to `high`, with a line at zero where the scale has both signs.

    Hollow: of broken models; square: with the spectral term.
    """
    if interval is None:
        return Markup("")

    def x(value: float) -> float:
        return round(3 + (BAR - 6) * (min(max(value, low), high) - low) / (high - low), 1)

    zero = f'<line x1="{x(0)}" x2="{x(0)}" y1="1" y2="{HEIGHT - 1}" class="zero"/>' if low < 0 < high else ""
    face = "none" if hollow else fill
    return Markup(
        f'<svg class="bar" width="{BAR}" height="{HEIGHT}" aria-hidden="true">{zero}'
        f'<line x1="{x(interval.low)}" x2="{x(interval.high)}" y1="9" y2="9" stroke="{fill}" stroke-width="3" opacity=".55"/>'
        f"{_dot(x(interval.value), 9, 3, face, fill, square)}</svg>"
    )


def _dot(x: float, y: float, r: float, face: str, ink: str, square: bool) -> str:
    style = f'fill="{face}" stroke="{ink}" stroke-width="1.8"'
    box = f'<rect x="{x - r:g}" y="{y - r:g}" width="{2 * r:g}" height="{2 * r:g}" {style}/>'
    return box if square else f'<circle cx="{x}" cy="{y}" r="{r:g}" {style}/>'


def mark(fill: str, hollow: bool, square: bool) -> Markup:
    """A point without an interval."""
    return Markup(
        f'<svg class="bar" width="10" height="10" aria-hidden="true">{_dot(5, 5, 3, "none" if hollow else fill, fill, square)}</svg>'
    )


def broken(score: EntryScore | None, view: View) -> bool:
    """Whether nothing can be told of an entry's rate at a view: in one of its cells less than 90 % of the answers are coherent."""
    found = [c.views[view] for c in score.cells] if score else []
    return any(v is not None and cannot_tell(v.beside.coherent) is not None for v in found)


def scatter(rows: Sequence[BoardRow], names_below: int = 31) -> Markup:
    """Misaligned of asked against narrow loss: each entry at its early stop, both losses and its end, with intervals; hollow where broken.

    With `names_below` entries or more, colours alone name the optimiser's class.
    """
    from em_bench.analysis.preset_figures import plt

    shown = [r for r in rows if r.score and r.score.views["end"] and r.status not in ("failed", "retracted")]
    if not shown:
        return Markup("")

    def draw() -> plt.Figure:
        figure, axes = plt.subplots(figsize=(8.2, 4.4))
        ends: list[tuple[tuple[float, float], str, str]] = []
        for row in shown:
            score, ink = row.score, tint(row.submission)
            assert score
            dashes = ":" if row.submission and any(row.submission.lambdas) else "-"
            line = [(v.beside.loss, 100 * v.rate.value) for view, _ in PLACES if (v := score.views[view])]
            axes.plot(*zip(*line, strict=True), color=ink, lw=1, alpha=0.5, ls=dashes)
            for view, marker in PLACES:
                if v := score.views[view]:
                    x, low, high = v.beside.loss, 100 * v.rate.low, 100 * v.rate.high
                    axes.plot([x, x], [low, high], color=ink, lw=2, alpha=0.35)
                    face = "none" if broken(score, view) and marker != "x" else ink
                    axes.plot([x], [100 * v.rate.value], ls="", marker=marker, ms=7, mfc=face, mec=ink, mew=1.6)
            ends.append((line[-1], row.name, ink))
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.set_ylim(bottom=0)
        ends = sorted(ends, key=lambda e: e[0][1]) if len(ends) < names_below else []
        for (end, name, ink), y in zip(ends, apart([e[0][1] for e in ends], axes.get_ylim()[1] / 22), strict=True):
            leader = {"arrowstyle": "-", "color": ink, "lw": 0.6, "alpha": 0.6, "relpos": (0, 0.5)}
            beside = axes.get_yaxis_transform()
            axes.annotate(name, end, (1.02, y), xycoords="data", textcoords=beside, fontsize=8, va="center", arrowprops=leader)
        axes.xaxis.set_major_formatter("{x:.2f}")
        axes.xaxis.set_minor_formatter("{x:.2f}")
        axes.set_xlabel("held-out narrow loss (nats a token)")
        axes.set_ylabel("misaligned of all asked (%)")
        return figure

    return drawn(draw, "Misaligned share of all answers against narrow loss: at the early stop, at both losses and at the end")


def apart(ascending: Sequence[float], gap: float) -> list[float]:
    """Places for labels, in order and at least `gap` from each other, each as near to its own as the one below allows."""
    found: list[float] = []
    for y in ascending:
        found.append(max(y, found[-1] + gap) if found else y)
    return found


def curves(
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], x_label: str, y_label: str, title: str, fill: str, zero: bool
) -> Markup:
    """Lines by name, dashed differently; `zero`: the scale begins at 0."""
    from em_bench.analysis.preset_figures import plt

    if not any(line for _, line in lines):
        return Markup("")

    def draw() -> plt.Figure:
        figure, axes = plt.subplots(figsize=(5.6, 3.2))
        for (name, line), dashes in zip(lines, ("-", "--", ":", "-.") * len(lines), strict=False):
            axes.plot([p[0] for p in line], [p[1] for p in line], color=fill, ls=dashes, label=name)
        if zero:
            axes.set_ylim(bottom=0)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.legend()
        return figure

    return drawn(draw, title)


def drawn(draw, title: str) -> Markup:
    """A figure in the report's style. The page allows no styles but its own: they become attributes."""
    from em_bench.analysis.preset_figures import svg

    text = svg(draw, title)
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg ([^>]*?)style="[^"]*"', r'<svg class="figure" \1', text, count=1)
    return Markup(re.sub(r' style="([^"]*)"', _attributes, text))


def _attributes(style: re.Match) -> str:
    found = dict(re.findall(r"([a-z-]+): ([^;]+)", style[1]))
    font = found.pop("font", None)
    if font and (size := re.search(r"[\d.]+px", font)):
        found["font-size"] = size[0]
    return "".join(f' {name}="{value}"' for name, value in found.items())
