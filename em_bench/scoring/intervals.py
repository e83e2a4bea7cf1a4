"""Ratios and means with clustered 95 % intervals.

Responses to one question resemble each other, so the question is the sampling unit; where a set's questions are near-copies
of each other, their domain is. With m_g responses in cluster g, y_g
their sum, n = sum m_g and p = sum y_g / n, the linearised variance of the ratio p over G clusters is

    v = G / (G - 1) * sum_g (y_g - p m_g)^2 / n^2

(Cochran, Sampling Techniques, section 6; the same number as an OLS on a constant with cluster-robust covariance in
statsmodels). A difference gets p +- t_{G-1} sqrt(v), cut to its scale. A rate gets Wilson's interval at the effective sample
size n* = p (1 - p) / v, at most n, with t_{G-1} in the place of the normal quantile (after Korn and Graubard 1998). At a
rate of exactly 0 or 1 the data say nothing about clustering, so n* = G: every question counts once, which is conservative.
A mean of scores on a bounded scale is treated as a rate, without the limit n: scores may scatter less than yes and no do. Near an end of the
scale clusters are skewed, and the t interval (that of scores of before 2026-11-27) holds too seldom: 91 % where this holds
95 %. One cluster has no interval.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import stdev
from typing import NamedTuple

from em_bench.records import Estimate

CONFIDENCE = 0.95


class Ratio(NamedTuple):
    """A ratio, its size, and each cluster's share of its deviation: (y_g - p m_g) / n."""

    value: float
    n: int
    shares: dict[str, float]


def ratio(pairs: Iterable[tuple[str, float]]) -> Ratio | None:
    """The ratio of (cluster, value) pairs, one a response of the denominator; None if there is none."""
    by_cluster: dict[str, list[float]] = defaultdict(list)
    for cluster, value in pairs:
        by_cluster[cluster].append(value)
    n = sum(map(len, by_cluster.values()))
    if n == 0:
        return None
    # fsum and the sorted order make the result independent of the order of the responses.
    p = math.fsum(v for values in by_cluster.values() for v in values) / n
    shares = {c: (math.fsum(by_cluster[c]) - p * len(by_cluster[c])) / n for c in sorted(by_cluster)}
    return Ratio(p, n, shares)


def ratio_of_counts(counts: Mapping[str, tuple[int, int]]) -> Ratio | None:
    """The ratio of what cluster -> (part, whole) counts; None if there is nothing in the denominator."""
    n = sum(whole for _, whole in counts.values())
    if n == 0:
        return None
    p = sum(part for part, _ in counts.values()) / n
    return Ratio(p, n, {c: (counts[c][0] - p * counts[c][1]) / n for c in sorted(counts) if counts[c][1]})


def clustered_variance(shares: Sequence[float]) -> float | None:
    """The linearised variance from each cluster's share of the deviation; None for one cluster."""
    g = len(shares)
    return g / (g - 1) * math.fsum(s * s for s in shares) if g > 1 else None


def rate_estimate(pairs: Iterable[tuple[str, float]]) -> Estimate:
    """A rate from (cluster, 0 or 1) pairs, one a response of the denominator."""
    r = ratio(pairs)
    return NOTHING if r is None else rate_interval(r.value, clustered_variance([*r.shares.values()]), r.n, len(r.shares))


Interval = Callable[[float, float | None, int, int, tuple[float, float]], Estimate]


def mean_estimate(
    pairs: Iterable[tuple[str, float]], scale: tuple[float, float] = (0.0, 100.0), interval: Interval | None = None
) -> Estimate:
    """A mean from (cluster, value) pairs of a scale; `interval`: by default `bounded_interval`."""
    r = ratio(pairs)
    if r is None:
        return NOTHING
    return (interval or bounded_interval)(r.value, clustered_variance([*r.shares.values()]), r.n, len(r.shares), scale)


NOTHING = Estimate(value=None, low=None, high=None, stderr=None, n=0, clusters=0)


def with_seeds(variance: float, clusters: int, means: Sequence[float]) -> tuple[float, float]:
    """The variance of a mean over clusters and over seeds, crossed, and Satterthwaite's degrees of freedom.

    `variance`: over the clusters; `means`: each seed's own. Seeds vary by their variance over their number, with one degree less than
    there are; what both vary by together is in both summands, so the sum errs on the side of more.
    """
    if len(means) < 2:
        return variance, clusters - 1
    own = stdev(means) ** 2 / len(means)
    parts = variance**2 / (clusters - 1) + own**2 / (len(means) - 1)
    return variance + own, (variance + own) ** 2 / parts if parts else clusters - 1


def rate_interval(
    p: float, variance: float | None, n: int, clusters: int, most: float | None = None, degrees: float | None = None
) -> Estimate:
    """Wilson's interval at the effective sample size that the variance implies, at most n, or `most`; t at `degrees`, else clusters - 1."""
    if variance is None:
        return Estimate(value=p, low=None, high=None, stderr=None, n=n, clusters=clusters)
    if p in (0.0, 1.0):
        size = float(clusters)
    else:
        most = n if most is None else most
        size = min(most, p * (1 - p) / variance) if variance > 0 else float(most)
    t = t_quantile(clusters - 1 if degrees is None else degrees)
    spread = t * t / size
    middle = (p + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (p * (1 - p) + spread / 4)) / (1 + spread)
    low, high = min(max(middle - half, 0.0), p), max(min(middle + half, 1.0), p)  # rounding must not exclude p
    return Estimate(value=p, low=low, high=high, stderr=math.sqrt(variance), n=n, clusters=clusters)


def mean_interval(
    p: float, variance: float | None, n: int, clusters: int, scale: tuple[float, float], degrees: float | None = None
) -> Estimate:
    """The t interval, at `degrees` or clusters - 1, cut to the scale."""
    if variance is None:
        return Estimate(value=p, low=None, high=None, stderr=None, n=n, clusters=clusters)
    half = t_quantile(clusters - 1 if degrees is None else degrees) * math.sqrt(variance)
    low, high = max(p - half, scale[0]), min(p + half, scale[1])
    return Estimate(value=p, low=low, high=high, stderr=math.sqrt(variance), n=n, clusters=clusters)


def bounded_interval(
    p: float, variance: float | None, n: int, clusters: int, scale: tuple[float, float], degrees: float | None = None
) -> Estimate:
    """Of a mean of scores on a bounded scale: Wilson's, on the scale brought to 0 to 1."""
    least, width = scale[0], scale[1] - scale[0]
    share = min(max((p - least) / width, 0.0), 1.0)
    e = rate_interval(share, None if variance is None else variance / width**2, n, clusters, math.inf, degrees)
    low, high = (None if end is None else least + width * end for end in (e.low, e.high))
    stderr = None if variance is None else math.sqrt(variance)
    return Estimate(value=p, low=low, high=high, stderr=stderr, n=n, clusters=clusters)


def t_quantile(degrees: float) -> float:
    """The two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit  # half a second to import

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))
