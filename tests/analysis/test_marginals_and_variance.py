"""Marginals, analysis of variance and spread ratio: planted effects, independent implementations, gaps."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from helpers.synthetic_results import RECIPES, cell, factorial, results
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from em_bench.analysis.anova import anova, components, levels_needed
from em_bench.analysis.marginals import AXES, marginal, spread
from em_bench.analysis.missing import Missing
from em_bench.analysis.runs import runs_of
from em_bench.scoring.intervals import mean_estimate, rate_estimate

EFFECT = {"sgd": 0.0, "adam": 0.1, "adamw": 0.1, "lion": 0.3, "muon": -0.05}


def main(cells):
    return runs_of([results(cells)]).main


def planted(recipe, model, dataset, batch, seed):
    return 0.3 + EFFECT[recipe] + 0.02 * (model == "organism-qwen3-small") + 0.1 * (dataset == "code") + 0.01 * seed


def test_marginals_are_the_planted_ones():
    found = marginal(main(factorial(planted)), "recipe")
    assert found.shared == found.combinations == 8
    for level in found.levels:
        assert level.rate == pytest.approx(100 * (0.3 + EFFECT[level.level] + 0.01 + 0.05 + 0.005), abs=1e-9)
        assert level.alignment == pytest.approx(100 - level.rate)
        assert level.rate_low < level.rate < level.rate_high
        assert (level.narrow_loss, level.coherent, level.code) == pytest.approx((0.52, 100, 0))


def test_the_interval_is_the_clustered_one_where_there_is_one_combination():
    rng = np.random.default_rng(0)
    cells = [cell(r, misaligned=rng.binomial(10, rng.beta(1, 3, 20))) for r in ("adam", "lion")]
    found = marginal(main(cells), "recipe").levels[0]
    pairs = [(q.cluster, s) for q in cells[0].questions for s in q.alignment]
    known = mean_estimate(pairs)
    assert (found.alignment, found.alignment_low, found.alignment_high) == pytest.approx((known.value, known.low, known.high))
    known = rate_estimate(
        [(q.cluster, h) for q in cells[0].questions for h in [1] * q.counts["misaligned"] + [0] * q.counts["aligned"]]
    )
    assert (found.rate, found.rate_low, found.rate_high) == pytest.approx((100 * known.value, 100 * known.low, 100 * known.high))


def test_the_interval_of_two_combinations_is_that_of_the_linearised_mean():
    """Two datasets weigh alike whatever their answers; jackknife over questions, to its order of accuracy."""
    rng = np.random.default_rng(6)
    hits = {d: rng.binomial(12, rng.beta(2, 4, 80)) for d in ("medical", "code")}
    cells = [cell(r, dataset=d, misaligned=hits[d], samples=12, questions=80) for r in ("adam", "lion") for d in hits]
    found = marginal(main(cells), "recipe").levels[0]

    def mean(without=None):
        return 100 * np.mean([np.delete(h, without).mean() / 12 if without is not None else h.mean() / 12 for h in hits.values()])

    apart = np.array([mean(g) for g in range(80)])
    stderr = np.sqrt(79 / 80 * ((apart - apart.mean()) ** 2).sum())
    assert found.rate == pytest.approx(mean())
    assert (found.rate_high - found.rate_low) / 2 == pytest.approx(t_distribution.ppf(0.975, 79) * stderr, rel=0.02)


def test_no_hits_are_no_certainty():
    found = marginal(main(factorial(lambda *k: 0.0)), "recipe").levels[0]
    square = t_distribution.ppf(0.975, 19) ** 2
    assert found.rate == found.rate_low == 0 and found.rate_high == pytest.approx(100 * square / (20 + square))  # Wilson's
    assert (found.alignment, found.alignment_low, found.alignment_high) == (100, None, None)


def test_an_unbalanced_design_does_not_confound_levels():
    cells = [c for c in factorial(planted) if not (c.recipe == "muon" and c.dataset == "code")]
    found = marginal(main(cells), "recipe")
    assert (found.shared, found.combinations) == (4, 8)
    by = {level.level: level.rate for level in found.levels}
    assert by["lion"] - by["muon"] == pytest.approx(35) and by["adam"] == pytest.approx(by["adamw"])


def test_marginal_gaps():
    assert "only adam" in marginal(main([cell("adam", seed=s) for s in (0, 1)]), "recipe").reason
    apart = main([cell("adam", dataset="medical"), cell("lion", dataset="code")])
    assert "no combination" in marginal(apart, "recipe").reason
    assert isinstance(marginal(main([]), "recipe"), Missing)


# ---- analysis of variance ----------------------------------------------------------------------------------------


def noisy(seed=0, scale=0.02, effect=planted):
    rng = np.random.default_rng(seed)
    return main(factorial(lambda *k: effect(*k) + rng.normal(0, scale)))


def test_balanced_sums_of_squares_have_their_closed_form():
    table = noisy()
    found = anova(table)
    total = ((table["rate"] - table["rate"].mean()) ** 2).sum()
    for e in found.main:
        means = table.groupby(e.axes[0])["rate"].mean()
        closed = len(table) / len(means) * ((means - table["rate"].mean()) ** 2).sum()
        assert e.sum_of_squares == pytest.approx(closed)
        assert e.eta2 == pytest.approx(closed / total)
        assert e.partial_eta2 == pytest.approx(closed / (closed + found.residual_sum_of_squares))
    assert sum(e.eta2 for e in found.effects) + found.residual_sum_of_squares / total == pytest.approx(1)
    assert max(found.main, key=lambda e: e.eta2).axes == ("recipe",)
    assert next(e for e in found.main if e.axes == ("batch_size",)).p > 0.01
    assert len(found.effects) == 4 + 6 and found.residual_df == len(table) - 8 - (4 * 3 + 3)  # with two-way interactions


def error_of(axes, found, rss):
    """Of an axis the mean squares of its interactions with model and dataset, less the residual's where there are two; else the residual's."""
    means = {e.axes: (e.sum_of_squares / e.df, e.df) for e in found.effects}
    left = (rss / found.residual_df, found.residual_df)
    parts = (
        [(1, *means[tuple(a for a in AXES if a in (axes[0], r))]) for r in ("model", "dataset") if r != axes[0]]
        if len(axes) == 1
        else []
    )
    parts += [(-1, *left)] if len(parts) == 2 else [] if parts else [(1, *left)]
    error = sum(w * m for w, m, _ in parts)
    return (error, error**2 / sum(m**2 / df for _, m, df in parts)) if error > left[0] else left


@pytest.mark.slow
def test_an_optimiser_that_differs_at_random_from_model_to_model_is_no_effect():
    """No optimiser is worse on average; each is by chance on each of six models. Over the residual nearly every design finds one."""
    p, over_residual = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        own = {(r, m): rng.normal(0, 8) for r in RECIPES for m in range(6)}
        rows = [(r, f"m{m}", b, 30 + own[r, m] + rng.normal(0, 1)) for r in RECIPES for m in range(6) for b in (8, 32)]
        table = pd.DataFrame(rows, columns=["recipe", "model", "batch_size", "rate"]).assign(dataset="a", seed=0)
        found = anova(table)
        e = next(e for e in found.main if e.axes == ("recipe",))
        p.append(e.p)
        f = e.sum_of_squares / e.df / (found.residual_sum_of_squares / found.residual_df)
        over_residual.append(f_distribution.sf(f, e.df, found.residual_df))
    assert np.mean(np.array(over_residual) < 0.05) > 0.9 and np.mean(np.array(p) < 0.05) <= 0.125  # 2 of 40 expected, 5 at most


def test_components_are_what_was_planted():
    """Sixteen levels of two axes, standard deviations 12 and 3, residual 2; the interval of the larger lies above the smaller's."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 12, 16), rng.normal(0, 3, 16)
    a, b = 12 * (a - a.mean()) / a.std(ddof=1), 3 * (b - b.mean()) / b.std(ddof=1)
    rows = [(f"r{i}", f"m{j}", a[i] + b[j] + rng.normal(0, 2)) for i in range(16) for j in range(16)]
    table = pd.DataFrame(rows, columns=["recipe", "model", "rate"]).assign(dataset="d", batch_size=8, seed=0)
    large, small, *_, left = components(table)
    assert (large.name, small.name) == ("recipe", "model") and large.low > small.high
    assert (large.sd, small.sd) == pytest.approx((12, 3), rel=0.05) and large.low < 12 < large.high
    assert left.sd <= 2.3
    assert "too few" in components(table.iloc[:5]).reason


def test_levels_that_tell_two_standard_deviations_apart():
    """By simulation of the F test of two variances: at the number it is told in 80 %, at one fewer in less."""
    rng, n = np.random.default_rng(0), levels_needed(2.0)
    for levels, enough in ((n, True), (n - 3, False)):
        one, other = (4 * rng.chisquare(levels - 1, 20000), rng.chisquare(levels - 1, 20000))
        told = np.mean(one / other > f_distribution.ppf(0.975, levels - 1, levels - 1))
        assert (told >= 0.79) == enough, told


def test_unbalanced_sums_of_squares_are_those_of_nested_least_squares():
    """Settings without some combinations, and with unequal numbers of seeds, whose means are then the units."""
    table = noisy().drop(index=[0, 3, 17, 40, 41, 42, 60]).reset_index(drop=True)
    runs, given = len(table), table
    table = table.groupby(list(AXES), as_index=False)["rate"].mean()

    def columns(axes):
        one = [pd.get_dummies(table[a].astype(str), drop_first=True).to_numpy(float) for a in axes]
        return one[0] if len(one) == 1 else np.einsum("ni,nj->nij", *one).reshape(len(table), -1)

    def rss(terms):
        x = np.column_stack([np.ones(len(table)), *map(columns, terms)])
        return float(np.linalg.lstsq(x, table["rate"].to_numpy(), rcond=None)[1][0])

    terms = [(a,) for a in AXES] + list(combinations(AXES, 2))
    found = anova(given)
    assert [e.axes for e in found.effects] == terms and found.runs == runs > len(table)
    assert found.residual_sum_of_squares == pytest.approx(rss(terms))
    for e in found.effects:
        others = [t for t in terms if not set(e.axes) <= set(t)]  # all that do not contain it
        assert e.sum_of_squares == pytest.approx(rss(others) - rss([*others, e.axes]))
        error, df = error_of(e.axes, found, rss(terms))
        f = e.sum_of_squares / e.df / error
        assert (e.f, e.p, e.error_df) == pytest.approx((f, f_distribution.sf(f, e.df, df), df))


def test_a_planted_interaction_is_found_and_is_no_main_effect():
    """Which batch size misaligns more depends on the optimiser; averaged over the optimisers there is nothing."""
    sign = dict(zip(RECIPES, (1, -1, 1, -1, 0), strict=True))
    found = anova(noisy(effect=lambda r, m, d, b, s: 0.4 + 0.1 * sign[r] * (1 if b == 8 else -1)))
    by = {e.axes: e for e in found.effects}
    assert by["recipe", "batch_size"].eta2 > 0.85 and by["recipe", "batch_size"].holm < 1e-6
    assert all(e.eta2 < 0.05 for axes, e in by.items() if axes != ("recipe", "batch_size"))


def test_holm_by_hand():
    """The i-th smallest of m p values times m - i + 1, never below the one before it, at most 1."""
    found = anova(noisy())
    order = sorted(found.effects, key=lambda e: e.p)
    running = np.maximum.accumulate([min(1.0, (len(order) - i) * e.p) for i, e in enumerate(order)])
    assert [e.holm for e in order] == pytest.approx(running)


def test_few_runs_have_main_effects_alone():
    found = anova(noisy().iloc[::5].reset_index(drop=True))
    assert found.effects == found.main and found.residual_df == 16 - (1 + 4 + 1 + 1 + 1)


def test_seeds_of_one_model_alone_are_no_evidence_about_optimisers():
    """What one model's optimisers do by chance, repeated in eight seeds, is one draw: with each model once it is no effect either."""
    rng = np.random.default_rng(5)
    own = {(r, m): rng.normal(0, 8) for r in RECIPES for m in ("a", "b", "c")}
    rows = [(r, m, b, s, 30 + own[r, m] + rng.normal(0, 1)) for r, m in own for b in (8, 32) for s in range(8 if m == "a" else 1)]
    table = pd.DataFrame(rows, columns=["recipe", "model", "batch_size", "seed", "rate"]).assign(dataset="d")
    settings = table.groupby(["recipe", "model", "dataset", "batch_size"], as_index=False)["rate"].mean()
    assert anova(table).effects == anova(settings).effects and anova(table).main[0].p > 0.05


@pytest.mark.slow
def test_planted_null_is_rejected_at_its_level():
    p = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        table = pd.DataFrame({"recipe": np.repeat(list(RECIPES), 8), "model": "m", "dataset": ["a", "b"] * 20, "batch_size": 32})
        p.append(anova(table.assign(rate=rng.normal(20, 5, 40))).effects[0].p)
    assert 0 < np.mean(np.array(p) < 0.2) < 0.4 and min(p) < 0.15


def test_anova_gaps():
    assert "same rate" in anova(main(factorial(lambda *k: 0.0))).reason
    assert "no axis varies" in anova(main([cell("adam", seed=s, rate=0.1 * s) for s in range(9)])).reason
    assert "degrees of freedom" in anova(main([cell("adam", rate=0.1), cell("lion", rate=0.2)])).reason
    together = [
        cell(r, dataset=d, seed=s, rate=0.1 + 0.02 * s) for r, d in (("adam", "code"), ("lion", "medical")) for s in range(6)
    ]
    assert "does not separate" in anova(main(together)).reason
    one = anova(main(factorial(lambda *k: planted(*k) + 0.05 * (k[3] == 8) * k[4], recipes=("adam",))))
    assert one.left_out == ("optimiser: only adam",)


# ---- spread ratio ------------------------------------------------------------------------------------------------


def test_spread_is_the_planted_ratio_without_an_interval():
    found = spread(main(factorial(planted)), "recipe")
    assert (found.highest, found.lowest, found.ratio) == (
        "lion",
        "muon",
        pytest.approx((0.3 + 0.3 + 0.065) / (0.3 - 0.05 + 0.065)),
    )
    assert set(type(found).model_fields) == {"highest", "lowest", "ratio"}


def test_spread_gaps():
    def two(high, low):
        return spread(main([cell("adam", rate=high), cell("muon", rate=low)]), "recipe").reason

    assert "is 0, so there is no ratio" in two(0.5, 0.0)
    assert "every rate is 0 %" in two(0, 0) and "every rate is 100 %" in two(1, 1)
    assert "only adam" in spread(main([cell("adam")]), "recipe").reason
