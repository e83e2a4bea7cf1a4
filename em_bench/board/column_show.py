"""What a column of the board is, and how values are shown: numbers, bars, hollow marks."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from em_bench.board import draw
from em_bench.board.row import BoardRow
from em_bench.board.seed_table import Interval
from em_bench.board.views import PointScore, View


class Scales(NamedTuple):
    """What the bars of a whole column share."""

    rate_top: float
    shift_top: float
    baseline: str


Show = Callable[[BoardRow, Any, Scales], str]


def plain(row: BoardRow, value: Any, scales: Scales) -> str:
    """The value itself."""
    return "–" if value is None else str(value)


class BoardColumn(NamedTuple):
    """A column: its key in the CSV, its heading, what it means, its value (None: nothing to show), and how the page shows it.

    `anchor`: of docs/measure.md, where it says why.
    """

    key: str
    anchor: str
    title: str
    meaning: str
    value: Callable[[BoardRow], object]
    show: Show = plain
    kind: Literal["number", "text"] = "number"  # by which it is sorted
    left: bool = False  # aligned as words are
    alone: bool = True  # has a column of the page to itself; the track stands below the status


def score_of(path: str) -> Callable[[BoardRow], object]:
    def value(row: BoardRow) -> object:
        found: object = row.score
        for part in path.split("."):
            found = getattr(found, part) if found is not None else None
        return found

    return value


def submission_of(field: str) -> Callable[[BoardRow], object]:
    return lambda row: getattr(row.submission, field) if row.submission else None


def percent(value: float | None, digits: int = 1) -> str:
    """A share in per cent, without a sign of its own."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None) -> str:
    """A difference of shares in points, with its sign."""
    return "–" if value is None else f"{100 * value:+z.1f}".replace("-", "−")


def span(interval: Interval | None, show: Callable = percent) -> str:
    """An interval in words."""
    return "" if interval is None else f"{show(interval.low)} to {show(interval.high)}"


def number(value: float | None, digits: int = 1) -> str:
    """A number with its thousands apart."""
    return "–" if value is None else f"{value:,.{digits}f}"


def sub_text(text: str, css: str = "sub") -> Markup:
    return Markup('<span class="{}">{}</span>').format(css, text)


def number_of(digits: int) -> Show:
    return lambda row, value, scales: number(value, digits)


def show_rank(row: BoardRow, value: Any, scales: Scales) -> str:
    if row.counted_as:
        return Markup('–<span class="sub">see {}</span>').format(row.counted_as)
    return plain(row, value, scales) + (sub_text(f"tie of {row.tied}") if row.tied and row.tied > 1 else "")


def bar_of(row: BoardRow, found: Interval, ends: tuple[float, float], show: Callable, hollow: bool) -> Markup:
    square = row.submission is not None and any(row.submission.lambdas)
    bar = draw.bar(found, *ends, draw.tint(row.submission), hollow, square)
    return Markup("{} {}{}").format(bar, show(found.value), sub_text(span(found, show)))


def hollow_at(row: BoardRow, *views: View) -> bool:
    return any(draw.broken(row.score, v) for v in views)


def show_primary(row: BoardRow, value: Any, scales: Scales) -> str:
    if row.score and not row.score.learned:
        return "did not learn" + sub_text(f"{row.score.reached} of {row.score.runs} runs reach both losses", "sub say")
    found = row.score and row.score.rate
    if not found:
        return "–"
    hollow = hollow_at(row, "upper", "lower")
    return bar_of(row, found, (0, scales.rate_top), percent, hollow) + (sub_text("broken", "sub fail") if hollow else "")


def show_at(view: View) -> Show:
    def show(row: BoardRow, value: Any, scales: Scales) -> str:
        found = row.score and row.score.views[view]
        if not found:
            return "–"
        square = row.submission is not None and any(row.submission.lambdas)
        point = draw.mark(draw.tint(row.submission), hollow_at(row, view), square)
        return Markup("{} {}{}").format(point, percent(found.rate.value), sub_text(span(found.rate)))

    return show


def show_difference(row: BoardRow, value: Any, scales: Scales) -> str:
    if row.name == scales.baseline:
        return "baseline"
    found = row.score and row.score.difference
    return bar_of(row, found, (-scales.shift_top, scales.shift_top), points, hollow_at(row, "upper", "lower")) if found else "–"


def show_share(row: BoardRow, value: object, scales: Scales) -> str:
    return percent(value if isinstance(value, float) else None)


def show_gated(gate: str) -> Show:
    def show(row: BoardRow, value: Any, scales: Scales) -> str:
        failed = row.score is not None and any(g.id == gate and not g.passed for g in row.score.gates)
        told = "not measured" if value is None else "fails the gate"
        return percent(value) + (sub_text(told, "sub say fail") if failed else "")

    return show


def rate_at(view: View) -> Callable[[BoardRow], object]:
    return lambda row: v.rate.value if row.score and (v := row.score.views[view]) else None


def beside(read: Callable[[PointScore], float | None]) -> Callable[[BoardRow], float | None]:
    """The mean over both losses."""
    return lambda row: row.score.mean(read) if row.score else None


def capable(row: BoardRow) -> float | None:
    return v.beside.capability if row.score and (v := row.score.views["lower"]) else None
