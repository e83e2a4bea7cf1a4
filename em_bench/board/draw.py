"""The board's drawings, as SVG markup: intervals in the table, the loss-alignment scatter, spectra, loss curves."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from em_bench.analysis.palette import colour
from em_bench.board.bootstrap import Interval
from em_bench.board.row import BoardRow
from em_bench.board.submission import Submission
from em_bench.scoring import cannot_tell

BAR, HEIGHT = 68, 18  # board.js draws the same bar


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


class Axis(NamedTuple):
    """A linear scale from data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / self._span * (self.end - self.start), 2)

    @property
    def _span(self) -> float:
        """Not 0 where all the data are one number."""
        return (self.high - self.low) or 1.0

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers on the scale."""
        raw = self._span / about
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(s * size for s in (1, 2, 2.5, 5, 10) if s * size >= raw)
        first = -(-self.low // step)
        out = []
        while first * step <= self.high + 1e-12:
            out.append(round(first * step, 10) + 0.0)  # no minus before a zero
            first += 1
        return out


def _frame(x: Axis, y: Axis, x_label: str, y_label: str, x_text, y_text) -> list[str]:
    out = []
    for t in y.ticks():
        out.append(f'<line x1="{x.start}" x2="{x.end}" y1="{y(t)}" y2="{y(t)}" class="grid"/>')
        out.append(f'<text x="{x.start - 8}" y="{y(t) + 4}" text-anchor="end">{y_text(t)}</text>')
    for t in x.ticks():
        out.append(f'<line x1="{x(t)}" x2="{x(t)}" y1="{y.start}" y2="{y.start + 5}" class="axis"/>')
        out.append(f'<text x="{x(t)}" y="{y.start + 20}" text-anchor="middle">{x_text(t)}</text>')
    out.append(f'<line x1="{x.start}" x2="{x.end}" y1="{y.start}" y2="{y.start}" class="axis"/>')
    out.append(f'<text x="{(x.start + x.end) / 2}" y="{y.start + 42}" text-anchor="middle" class="label">{x_label}</text>')
    out.append(
        f'<text transform="translate({x.start - 46} {(y.start + y.end) / 2}) rotate(-90)" text-anchor="middle" class="label">{y_label}</text>'
    )
    return out


class ScatterPoint(NamedTuple):
    """A checkpoint of the baseline: mean narrow loss and misaligned rate over its runs."""

    step: int
    loss: float
    rate: float


def scatter(rows: Sequence[BoardRow], frontier: Sequence[ScatterPoint], names_below: int = 31) -> Markup:
    """Misaligned rate against narrow loss: each entry at matched loss (with its interval) and at the end, AdamW's path between.

    With `names_below` points or more, names are left to the tooltips.
    """
    found: list[tuple[BoardRow, tuple[float, Interval] | None, tuple[float, Interval]]] = []  # each a loss and a rate
    for row in rows:
        s = row.score
        if s is None or s.final is None or row.status in ("failed", "retracted"):
            continue
        runs = [r for c in s.cells for r in c.runs]
        final = sum(r.final_loss for r in runs) / len(runs)
        matched = sum(r.matched_loss or 0.0 for r in runs) / len(runs)
        found.append((row, (matched, s.matched) if s.matched else None, (final, s.final)))
    if not found:
        return Markup("")
    shown = [place for _, m, f in found for place in (m, f) if place]
    losses, tops = [loss for loss, _ in shown], [rate.high for _, rate in shown]
    pad = 0.06 * (max(losses) - min(losses) or 0.01)
    x = Axis(min(losses) - pad, max(losses) + pad, 64, 640)
    y = Axis(0.0, min(1.0, 1.05 * max(tops)) or 0.01, 380, 14)  # where no run is misaligned
    out = _frame(
        x,
        y,
        "held-out narrow loss (nats a token)",
        "misaligned rate (%)",
        lambda t: f"{t:.3f}",
        lambda t: f"{100 * t:.0f}",
    )
    out.append(
        f'<clipPath id="plot"><rect x="{x.start}" y="{y.end}" width="{x.end - x.start}" height="{y.start - y.end}"/></clipPath>'
    )
    if len(frontier) > 1:
        path = " ".join(f"{x(p.loss)},{y(p.rate)}" for p in frontier)
        blue = colour("adamw")
        out.append(
            f'<g clip-path="url(#plot)"><polyline points="{path}" fill="none" stroke="{blue}" stroke-width="2" stroke-dasharray="6 4"/>'
        )
        out += [
            f'<circle cx="{x(p.loss)}" cy="{y(p.rate)}" r="2.5" fill="{blue}"><title>AdamW, step {p.step}</title></circle>'
            for p in frontier
        ]
        out.append("</g>")
    labels = []
    for row, at_target, (final, ended) in found:
        fill = tint(row.submission)
        face, square = (
            "none" if row.score and cannot_tell(row.score.coherent) else fill,
            bool(row.submission and any(row.submission.lambdas)),
        )
        what = f"{row.name}: {100 * ended.value:.1f} % at the end"
        body = ""
        if at_target is not None:
            matched, rate = at_target
            what = f"{row.name}: {100 * rate.value:.1f} % at matched loss, {100 * ended.value:.1f} % at the end"
            at, lo, hi = y(rate.value), y(rate.low), y(rate.high)
            body += (
                f'<line x1="{x(matched)}" y1="{at}" x2="{x(final)}" y2="{y(ended.value)}" stroke="{fill}" opacity=".45"/>'
                f'<line x1="{x(matched)}" x2="{x(matched)}" y1="{lo}" y2="{hi}" stroke="{fill}" stroke-width="2" opacity=".55"/>'
                + _dot(x(matched), at, 5.5, face, fill, square)
            )
            labels.append((at, x(matched), row.name, fill))
        else:
            labels.append((y(ended.value), x(final), row.name, fill))
        cx, cy = x(final), y(ended.value)
        body += f'<path d="M{cx - 3.5} {cy - 3.5}l7 7m0 -7l-7 7" stroke="{fill}" stroke-width="1.8"/>'
        out.append(f'<a href="entries/{row.name}.html"><title>{escape(what)}</title>{body}</a>')
    if len(labels) < names_below:
        out += _names(labels, 656, y.end, y.start)
    return _svg(
        out,
        810,
        434,
        "Misaligned rate against held-out narrow loss of every entry, at matched loss and at the end of training",
    )


def _names(labels, left: float, top: float, bottom: float) -> list[str]:
    """Names in a column at the right, each with a thread to its point, none over another."""
    labels = sorted(labels)
    gap = min(17.0, (bottom - top) / max(len(labels), 1))
    places: list[float] = []
    for at, *_ in labels:
        places.append(max(at, places[-1] + gap) if places else max(at, top + 6))
    over = places[-1] - bottom if places else 0
    if over > 0:
        places[-1] = bottom
        for i in range(len(places) - 2, -1, -1):
            places[i] = min(places[i], places[i + 1] - gap)
    out = []
    for (at, cx, name, fill), place in zip(labels, places, strict=True):
        out.append(
            f'<polyline points="{cx + 7},{at} {left - 8},{place} {left - 2},{place}" fill="none" stroke="{fill}" opacity=".35"/>'
        )
        out.append(f'<text x="{left}" y="{place + 4}">{escape(name)}</text>')
    return out


def curves(
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    x_label: str,
    y_label: str,
    title: str,
    fill: str,
    zero: bool,
) -> Markup:
    """Lines by name, dashed differently; `zero`: the scale begins at 0."""
    points_ = [p for _, line in lines for p in line]
    if not points_:
        return Markup("")
    ys = [p[1] for p in points_]
    x = Axis(min(p[0] for p in points_), max(p[0] for p in points_) or 1, 64, 430)
    y = Axis(0.0 if zero else min(ys) - 0.03 * (max(ys) - min(ys) or 1), max(ys) * 1.03, 250, 12)
    out = _frame(x, y, x_label, y_label, lambda t: f"{t:g}", lambda t: f"{t:g}")
    dashes = ("", "7 3", "2 3", "9 3 2 3")
    labels = []
    for i, (name, line) in enumerate(lines):
        path = " ".join(f"{x(a)},{y(b)}" for a, b in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{fill}" stroke-width="2" stroke-dasharray="{dashes[i % 4]}"/>')
        labels.append((y(line[-1][1]), x(line[-1][0]) - 7, name, fill))
    out += _names(labels, 448, y.end, y.start)
    return _svg(out, 600, 304, title)


def _svg(parts: Sequence[str], width: int, height: int, title: str) -> Markup:
    body = "".join(parts)
    return Markup(f'<svg class="figure" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{body}</svg>')
