"""Intervals against hand-computed cases, statsmodels, a plain cluster bootstrap, and planted rates."""

import math

import numpy as np
import pytest
import statsmodels.api as sm

from em_bench.scoring import mean_estimate, rate_estimate
from em_bench.scoring.intervals import mean_interval, t_quantile


def clustered(rng, clusters: int, low: int = 1, high: int = 12, spread: float = 0.3, binary: bool = True):
    """Random (cluster, value) pairs of unequal clusters whose members resemble each other."""
    pairs = []
    for g in range(clusters):
        middle = rng.beta(0.4 / spread, 0.6 / spread)
        for _ in range(rng.integers(low, high + 1)):
            value = float(rng.random() < middle) if binary else 100 * np.clip(rng.normal(middle, 0.1), 0, 1)
            pairs.append((f"q{g}", value))
    return pairs


def test_by_hand():
    # p = 4/6. Shares of the deviation: q1 (2 - 2p)/6 = 1/9, q2 (1 - 3p)/6 = -1/6, q3 (1 - p)/6 = 1/18.
    # Variance: 3/2 (1/81 + 1/36 + 1/324) = 3/2 * 14/324 = 7/108.
    pairs = [("q1", 1), ("q1", 1), ("q2", 1), ("q2", 0), ("q2", 0), ("q3", 1)]
    e = mean_estimate(pairs, (-10, 10), mean_interval)
    assert (e.value, e.n, e.clusters) == (pytest.approx(2 / 3, abs=1e-15), 6, 3)
    assert e.stderr == pytest.approx(math.sqrt(7 / 108), abs=1e-15)
    t = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))  # closed form at 2 degrees of freedom
    assert (e.low, e.high) == pytest.approx((2 / 3 - t * math.sqrt(7 / 108), 2 / 3 + t * math.sqrt(7 / 108)), abs=1e-12)
    # Rate: n* = (2/9) / (7/108) = 24/7; Wilson's bounds are the roots of (p - x)^2 = t^2 x (1 - x) / n*.
    e = rate_estimate(pairs)
    a, b, c = 1 + t * t * 7 / 24, -(4 / 3 + t * t * 7 / 24), 4 / 9
    root = math.sqrt(b * b - 4 * a * c)
    bounds = (-b - root) / 2 / a, (-b + root) / 2 / a
    assert (e.low, e.high) == pytest.approx(bounds, abs=1e-12)
    # A mean of scores from 20 to 70 that are one or the other is the same on its scale.
    e = mean_estimate([(q, 20 + 50 * v) for q, v in pairs], (20, 70))
    assert (e.value, e.low, e.high) == pytest.approx((20 + 50 * 2 / 3, *(20 + 50 * x for x in bounds)), abs=1e-10)
    assert e.stderr == pytest.approx(50 * math.sqrt(7 / 108), abs=1e-12)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("clusters", [2, 3, 24, 142])
def test_against_statsmodels(clusters, binary):
    rng = np.random.default_rng(clusters)
    pairs = clustered(rng, clusters, binary=binary)
    names, values = zip(*pairs, strict=True)
    groups = np.unique(names, return_inverse=True)[1]
    fit = sm.OLS(np.array(values), np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    e = mean_estimate(pairs, (-1e9, 1e9), mean_interval)
    assert e.value == pytest.approx(fit.params[0], rel=1e-12)
    assert e.stderr == pytest.approx(fit.bse[0], rel=1e-10, abs=1e-15)
    assert (e.low, e.high) == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-10, abs=1e-13)
    assert rate_estimate(pairs).stderr == e.stderr if binary else True


def test_against_cluster_bootstrap():
    rng = np.random.default_rng(3)
    pairs = clustered(rng, 60, low=8, high=12)
    sums = np.zeros((60, 2))
    for name, value in pairs:
        sums[int(name[1:])] += value, 1
    drawn = sums[rng.integers(0, 60, (20_000, 60))].sum(1)
    rates = drawn[:, 0] / drawn[:, 1]
    e = rate_estimate(pairs)
    assert e.stderr == pytest.approx(rates.std(), rel=0.03)  # the bootstrap lacks G / (G - 1): 0.8 %
    assert (e.low, e.high) == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])), abs=0.012)


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.5])
@pytest.mark.parametrize(("questions", "samples"), [(12, 10), (48, 10)])
def test_coverage(rate, questions, samples):
    """Of 600 planted clustered data sets, about 95 % have an interval that holds the planted rate."""
    rng = np.random.default_rng(7)
    held = naive = 0
    for _ in range(600):
        middles = rng.beta(rate * 4, (1 - rate) * 4, questions)  # intra-question correlation 0.2
        pairs = [(str(g), float(h)) for g, m in enumerate(middles) for h in rng.random(samples) < m]
        e = rate_estimate(pairs)
        held += e.low <= rate <= e.high
        flat = rate_estimate((str(i), v) for i, (_, v) in enumerate(pairs))  # as if every response were a question
        naive += flat.low <= rate <= flat.high
    assert held / 600 > (0.86 if rate < 0.1 else 0.92)  # rare and clustered: few questions carry the rate
    assert naive < held


def test_all_or_none():
    none = rate_estimate([(f"q{i % 24}", 0.0) for i in range(240)])
    every = rate_estimate([(f"q{i % 24}", 1.0) for i in range(240)])
    q = t_quantile(23) ** 2 / 24
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(q / (1 + q))  # Wilson at 0 of 24 questions
    assert (every.value, every.high) == (1, 1)
    assert every.low == pytest.approx(1 - none.high)
    assert none.stderr == every.stderr == 0


def test_equal_clusters_never_give_more_than_every_response():
    even = rate_estimate([(f"q{i}", float(j)) for i in range(10) for j in (0, 1)])  # no variance between questions
    t = t_quantile(9)
    assert even.low == pytest.approx(0.5 - t / 2 / math.sqrt(20 + t * t))


def test_one_cluster_and_nothing():
    one = rate_estimate([("q", 1.0), ("q", 0.0)])
    assert (one.value, one.low, one.high, one.stderr, one.n, one.clusters) == (0.5, None, None, None, 2, 1)
    nothing = mean_estimate([])
    assert (nothing.value, nothing.low, nothing.n, nothing.clusters) == (None, None, 0, 0)


def test_order_does_not_matter():
    rng = np.random.default_rng(1)
    pairs = clustered(rng, 30, binary=False)
    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    assert mean_estimate(pairs) == mean_estimate(shuffled)


def test_a_mean_stays_on_its_scale():
    scores = [("a", 100.0), ("b", 100.0), ("c", 60.0)]
    cut, e = mean_estimate(scores, interval=mean_interval), mean_estimate(scores)
    assert cut.high == 100 and cut.low < 60 and e.low < 60 and e.value < e.high < 100
    assert mean_estimate([("a", 100.0), ("b", 100.0)]).low < 100, "two questions all aligned are no certainty"


def test_scores_in_the_middle_of_their_scale_have_the_t_interval():
    pairs = clustered(np.random.default_rng(8), 400, binary=False)
    pairs = [(g, 40 + v / 5) for g, v in pairs]
    e, t = mean_estimate(pairs), mean_estimate(pairs, interval=mean_interval)
    assert (e.low, e.high) == pytest.approx((t.low, t.high), abs=0.02 * (t.high - t.low))
