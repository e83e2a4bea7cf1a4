"""Levels and differences of runs: closed forms with seeds, pairing by seed and by cluster, and what is missing."""

import math

import numpy as np
import pytest
import statsmodels.api as sm

from em_bench.scoring.intervals import t_quantile, with_seeds
from em_bench.scoring.levels import COHERENT, OF_ASKED, REFUSED, Counts, Measured, difference, level


def run(seed, *misaligned, asked=10):
    """A run of clusters that were asked 10 each."""
    return Measured(seed, (({f"c{i}": Counts(m, asked, 0, asked) for i, m in enumerate(misaligned)}, 1.0),))


def test_seeds_are_units_beside_clusters():
    """Clusters alike: what is left is the spread of the seeds, (0.2, 0.4): variance 0.02 / 2, t with 1 degree, Wilson's roots."""
    e = level([run(0, 2, 2, 2), run(1, 4, 4, 4)], OF_ASKED)
    assert (e.value, e.n, e.clusters, e.stderr) == (pytest.approx(0.3), 60, 3, pytest.approx(0.1))
    t, size = t_quantile(1), 0.3 * 0.7 / 0.01
    a, b, c = 1 + t * t / size, -(0.6 + t * t / size), 0.09
    root = math.sqrt(b * b - 4 * a * c)
    assert (e.low, e.high) == pytest.approx(((-b - root) / 2 / a, (-b + root) / 2 / a))
    assert level([run(0, 2, 2, 2), run(0, 4, 4, 4)], OF_ASKED).stderr == pytest.approx(0), (
        "one seed, two datasets: no other training seen"
    )


def test_two_variances_have_satterthwaites_degrees():
    """Equal parts of 8 and 1 degrees: (2 v)^2 / (v^2 / 8 + v^2 / 1) = 32 / 9. Without spread of seeds, or with one, clusters less one."""
    assert with_seeds(0.01, 9, [0.2, 0.2 + math.sqrt(0.04)]) == (pytest.approx(0.02), pytest.approx(32 / 9))
    assert with_seeds(0.01, 9, [0.3, 0.3]) == (0.01, 8) == with_seeds(0.01, 9, [0.3])


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_planted_crossed_effects_are_held(seeds):
    """Nine domains of 12 points, seeds of 6, both together 4, as measured on the organism: 93 to 97 % of 4,000 intervals hold the level."""
    rng, held = np.random.default_rng(seeds), 0
    for _ in range(4000):
        y = 0.12 * rng.normal(size=9) + 0.06 * rng.normal(size=(seeds, 1)) + 0.04 * rng.normal(size=(seeds, 9))
        variance, degrees = with_seeds(float(y.mean(0).var(ddof=1)) / 9, 9, y.mean(1).tolist())
        held += abs(y.mean()) <= t_quantile(degrees) * math.sqrt(variance)
    assert 0.93 <= held / 4000 <= 0.97


def test_clusters_of_one_run_are_those_of_the_sandwich():
    e = level([run(0, 1, 4, 9)], OF_ASKED)
    hits = [float(i < m) for m in (1, 4, 9) for i in range(10)]
    groups = [g for g in range(3) for _ in range(10)]
    fit = sm.OLS(hits, [1.0] * 30).fit(cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True}, use_t=True)
    assert e.stderr**2 == pytest.approx(float(fit.cov_params()[0][0]) * (30 - 1) / 29)


def test_a_difference_is_paired_by_seed_and_by_cluster():
    """0.1 apart in every seed and cluster: no spread, however far seeds and clusters lie apart; shuffled, there is one."""
    a, b = [run(0, 2, 5), run(1, 4, 7)], [run(0, 1, 4), run(1, 3, 6)]
    paired = difference(a, b, OF_ASKED)
    assert (paired.value, paired.low, paired.high) == pytest.approx((0.1, 0.1, 0.1))
    crossed = difference(a, [run(0, 6, 3), run(1, 4, 1)], OF_ASKED)
    assert crossed.value == pytest.approx(0.1) and crossed.low < 0 < crossed.high


def test_a_run_without_an_answer_that_counts_leaves_nothing():
    empty = Measured(0, (({"c0": Counts(0, 0, 0, 10, 10)}, 1.0),))
    assert (
        level([empty, run(1, 1)], COHERENT).value is None
        and level([empty], REFUSED).value == 1
        and level([], OF_ASKED).value is None
    )
