"""A rate by seed and domain, its interval, and what two of them differ by.

Every cell of an entry is trained with the same seeds and asked the same questions, so a rate is the mean of a table of seeds x
domains (of each, the mean over cells). Seeds and domains are both samples of what they stand for; in a crossed design of two random
factors with S and D levels (Scheffe 1959, chapter 7)

    var(mean) = MS_seed / SD + MS_domain / SD - MS_rest / SD

with MS of the rows, the columns and the residuals; never below what either factor alone gives where the rest is larger. Degrees of
freedom: min(S, D) - 1. An entry and another are compared table by table, seed by seed and domain by domain.

A table by another judge, brought onto the scale of the first by a calibration, has that map's error too: the delete-one-cluster jackknife over
the calibration, of the mean and of differences alike, so that two entries under one map share its error.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from em_bench.records import Record
from em_bench.scoring.calibration import ReferenceMap
from em_bench.scoring.intervals import mean_interval, rate_interval


class Interval(Record):
    """A number with its standard error and 95 % interval."""

    value: float
    low: float
    high: float
    stderr: float


class SeedTable(NamedTuple):
    """values [seeds, domains], whose mean is the rate: of a domain the share that it adds, times the number of domains.

    without: [clusters of a calibration], the mean by the map without each of them; empty where nothing was mapped.
    """

    values: np.ndarray
    without: np.ndarray = np.empty(0)

    @property
    def value(self) -> float:
        """The rate."""
        return math.fsum(self.values.ravel()) / self.values.size

    @property
    def units(self) -> int:
        """Of the rarest factor."""
        return min(*self.values.shape, *filter(None, self.without.shape))

    @property
    def variance(self) -> float:
        """Of the mean."""
        v, (s, d) = self.values, self.values.shape
        rows, columns = v.mean(axis=1), v.mean(axis=0)
        rest = v - rows[:, None] - columns[None, :] + v.mean()
        by_seed, by_domain = float(rows.var(ddof=1)) / s, float(columns.var(ddof=1)) / d
        sampled = max(by_seed + by_domain - float((rest**2).sum()) / ((s - 1) * (d - 1) * s * d), by_seed, by_domain)
        g = self.without.size
        return sampled + ((g - 1) * float(self.without.var()) if g else 0.0)

    def rate(self, answers: int) -> Interval:
        """As a rate of so many answers, whose interval stays within 0 and 1 (Wilson's form)."""
        found = rate_interval(min(max(self.value, 0.0), 1.0), self.variance, answers, self.units)
        return Interval.model_validate(found.model_dump(include={*Interval.model_fields}))

    def difference(self) -> Interval:
        """As a difference of rates."""
        found = mean_interval(self.value, self.variance, self.values.size, self.units, (-1.0, 1.0))
        return Interval.model_validate(found.model_dump(include={*Interval.model_fields}))

    def minus(self, other: "SeedTable") -> "SeedTable":
        """The paired difference. Of two mapped tables both are by one calibration."""
        own, theirs = (t.without if t.without.size else np.array(t.value) for t in (self, other))
        return SeedTable(self.values - other.values, np.atleast_1d(own - theirs) if own.ndim or theirs.ndim else self.without)

    def p(self) -> float:
        """Two-sided, of a mean of 0."""
        from scipy.special import stdtr

        value, variance = self.value, self.variance
        if not variance:
            return 0.0 if value else 1.0
        return float(2 * stdtr(self.units - 1, -abs(value) / math.sqrt(variance)))


def mean_table(tables: Sequence[SeedTable | None]) -> SeedTable | None:
    """The mean of tables of one judge, of the same seeds and domains; None where one is missing."""
    known = [t for t in tables if t is not None]
    if not known or len(known) != len(tables):
        return None
    return SeedTable(np.mean([t.values for t in known], axis=0), np.mean([t.without for t in known], axis=0))


def table_of(shares: np.ndarray, by: ReferenceMap | None = None) -> SeedTable:
    """From [seeds, domains, 3] shares of misaligned, aligned and neither; through `by` where another judge gave them."""
    if by is None:
        return SeedTable(shares[:, :, 0])
    return SeedTable(shares @ by.weights, shares.mean((0, 1)) @ by.without.T)
