"""The smallest scale at which a quantity that begins above a target falls to it: a coarse scan upwards, then the first bracket halved."""

from collections.abc import Callable
from itertools import pairwise
from math import isfinite
from typing import Literal, NamedTuple

_GOLDEN = (5**0.5 - 1) / 2
_FINEST = 1e-7  # between scales


class Found(NamedTuple):
    """scale is None for `never` and `already`; what these words mean stands at `records.ScaleSearch`."""

    verdict: Literal["reached", "nearest", "never", "already"]
    scale: float | None = None


class _UsedUp(Exception):
    pass


def smallest_scale(
    value: Callable[[float], float], target: float, *, tolerance: float, largest: float, step: float, most: int, dips: bool = True
) -> Found:
    """Evaluate `value` at scales in [0, largest], each once and at most `most` of them, and find the first fall to `target`.

    `value` need not be monotone: it is scanned upwards from 0 in steps of `step`, and the first interval at whose end it is at most
    the target is halved, or cut where a straight line would meet the target, in turn. Where no end is, and with `dips`, the scan's
    lowest point is closed in on, for a dip between two points. What falls and rises again within one step elsewhere is not seen.
    """
    known: dict[float, float] = {}

    def at(scale: float) -> float:
        scale = round(scale, 9)
        if scale not in known:
            if len(known) == most:
                raise _UsedUp
            known[scale] = value(scale)
        return known[scale]

    def nearest() -> Found:
        below = min((s for s, v in known.items() if v <= target + tolerance), default=None)
        if below is None:
            return Found("never")
        above = max(s for s in known if s < below)
        found = min((above, below), key=lambda s: (abs(known[s] - target), s))
        return Found("reached" if abs(known[found] - target) <= tolerance else "nearest", found)

    try:
        if at(0.0) <= target + tolerance:
            return Found("already")
        grid = [i * step for i in range(int(largest / step + 1e-9) + 1)]
        grid += [largest] if grid[-1] < largest - 1e-9 else []
        for low, high in pairwise(grid):
            if at(high) <= target + tolerance:
                return _closed_in(at, low, high, target, tolerance) or nearest()
        if dips and (dip := _dip(at, grid, target)):
            low = max(s for s in known if s < dip)
            return _closed_in(at, low, dip, target, tolerance) or nearest()
        return Found("never")
    except _UsedUp:
        return nearest()


def _closed_in(at: Callable[[float], float], low: float, high: float, target: float, tolerance: float) -> Found | None:
    """The scale between one above the target and one at it or below; None where the finest interval is not within the tolerance."""
    by_line = True
    while abs(at(high) - target) > tolerance:
        if high - low < _FINEST:
            return None
        share = (at(low) - target) / (at(low) - at(high)) if by_line and isfinite(at(low)) else 0.5
        by_line = not by_line
        middle = low + min(max(share, 0.01), 0.99) * (high - low)
        if at(middle) <= target + tolerance:
            high = middle
        else:
            low = middle
    return Found("reached", round(high, 9))


def _dip(at: Callable[[float], float], grid: list[float], target: float) -> float | None:
    """A scale at or below the target around the scan's lowest point, by golden section to a tenth of a step; None where there is none."""
    i = min(range(len(grid)), key=lambda i: at(grid[i]))
    a, b = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
    width = (b - a) / 20
    while b - a > width:
        c, d = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
        if below := [s for s in (c, d) if at(s) <= target]:
            return round(below[0], 9)
        a, b = (a, d) if at(c) < at(d) else (c, b)
    return None
