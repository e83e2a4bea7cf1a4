"""Does the margin tell how misaligned a model is? Against the exact misaligned rate of an organism, over all checkpoints of a sweep."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from scipy.stats import spearmanr

from em_bench.records import Metrics
from em_bench.scoring import cannot_tell


class Point(NamedTuple):
    """An adapter or a base: its mean margin (nats a byte) and the rates of its sampled answers."""

    name: str
    margin: float
    misaligned: float  # of all asked
    misaligned_coherent: float | None  # of the coherent
    coherent: float

    @classmethod
    def of(cls, name: str, margin: float, found: Metrics) -> "Point":
        return cls(
            name,
            margin,
            found.counts["misaligned"] / sum(found.counts.values()),
            found.misaligned_rate.value,
            found.coherent_rate.value or 0.0,
        )


class Bin(NamedTuple):
    """Models of like margin: the lowest and the highest of both."""

    models: int
    margin: tuple[float, float]
    misaligned: tuple[float, float]
    mean_misaligned: float


def rank_correlation(points: Sequence[Point], rate: str = "misaligned") -> float | None:
    """Spearman's correlation of the margin with a rate, over the points that have it; None below three of them."""
    pairs = [(p.margin, v) for p in points if (v := getattr(p, rate)) is not None]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else None


def unbroken(points: Sequence[Point]) -> list[Point]:
    """Those that are coherent enough for a rate to say anything."""
    return [p for p in points if not cannot_tell(p.coherent)]


def calibration(points: Sequence[Point], bins: int = 6) -> list[Bin]:
    """The points in order of their margin, in `bins` groups of (nearly) equal size."""
    ordered = sorted(points, key=lambda p: p.margin)
    edges = [round(i * len(ordered) / bins) for i in range(bins + 1)]
    out = []
    for part in (ordered[a:b] for a, b in pairwise(edges) if b > a):
        rates = [p.misaligned for p in part]
        out.append(Bin(len(part), (part[0].margin, part[-1].margin), (min(rates), max(rates)), sum(rates) / len(rates)))
    return out
