"""A rate by seed and domain: its variance against an analysis of variance, its coverage against planted truth; ranks."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from em_bench.board.ranking import holm, places
from em_bench.board.seed_table import SeedTable, mean_table


def planted(rng, rate: float, seeds: float, domains: float, rest: float, shape: tuple[int, int] = (8, 9)) -> SeedTable:
    s, d = shape
    return SeedTable(
        rate + seeds * rng.standard_normal((s, 1)) + domains * rng.standard_normal((1, d)) + rest * rng.standard_normal(shape)
    )


def test_the_variance_is_that_of_an_analysis_of_variance():
    """MS of statsmodels; where the interaction is larger than a factor, what a factor alone gives stands."""
    rng = np.random.default_rng(1)
    for seeds, domains, rest in ((0.05, 0.1, 0.03), (0.001, 0.001, 0.2)):
        table = planted(rng, 0.3, seeds, domains, rest)
        s, d = table.values.shape
        rows = [(i, j, table.values[i, j]) for i in range(s) for j in range(d)]
        frame = pd.DataFrame(rows, columns=["seed", "domain", "rate"])
        found = anova_lm(ols("rate ~ C(seed) + C(domain)", frame).fit())
        ms = (found["sum_sq"] / found["df"]).to_numpy() / (s * d)
        assert table.variance == pytest.approx(max(ms[0] + ms[1] - ms[2], ms[0], ms[1]))
        assert table.value == pytest.approx(frame.rate.mean())


def test_intervals_of_differences_hold_the_truth():
    """Seeds and domains both drawn anew: 95 % of 2,000 intervals hold the planted difference, 93 to 98 found in any run of this size."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(2000):
        found = planted(rng, 0.05, 0.03, 0.04, 0.05).difference()
        held += found.low <= 0.05 <= found.high
    assert 0.93 < held / 2000 < 0.985


def test_a_rate_of_nothing_has_an_interval_and_a_difference_of_itself_none():
    nothing = SeedTable(np.zeros((8, 9)))
    assert nothing.rate(5000).low == 0 < 0.2 < nothing.rate(5000).high < 0.5
    own = nothing.minus(nothing)
    assert (own.difference().low, own.difference().high, own.p()) == (0, 0, 1)
    assert mean_table([nothing, None]) is None and mean_table([]) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_only_the_leader_and_the_baseline_are_compared():
    rng = np.random.default_rng(3)
    tables = {n: planted(rng, r, 0.01, 0.0, 0.01) for n, r in (("a", 0.1), ("b", 0.102), ("c", 0.3), ("base", 0.31))}
    found = places(tables, {n: n for n in tables}, ("base", tables["base"]))
    leader, base = min(("a", "b"), key=lambda n: tables[n].value), "base"
    assert {n: found[n].rank for n in tables} == {"a": 1, "b": 1, "c": 3, "base": 4} and found["a"].tied == 2
    assert found[leader].p_leader is None and found[base].p_baseline is None
    assert found["c"].p_leader < 0.001 and found["a"].p_baseline < 0.001 < found["c"].p_baseline


@pytest.mark.slow
def test_equal_optimisers_are_rarely_split():
    """Eight equal entries on one set of domains: at most 5 % of boards separate any from the leader (40 boards: up to 10 % by chance)."""
    rng = np.random.default_rng(4)
    split = 0
    for _ in range(40):
        domains = 0.04 * rng.standard_normal((1, 9))
        tables = {f"e{i}": SeedTable(planted(rng, 0.1, 0.05, 0.01, 0.03).values + domains) for i in range(8)}
        split += any(p.rank != 1 for p in places(tables, {n: n for n in tables}, None).values())
    assert split / 40 <= 0.1
