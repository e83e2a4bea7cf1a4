"""Pairs and the lambda path: planted truth, independent implementations, gaps."""

import numpy as np
import pandas as pd
import pytest
from helpers.synthetic_results import cell, results
from scipy import stats

from em_bench.analysis import spectral_penalty as regularisation
from em_bench.analysis.missing import Missing
from em_bench.analysis.paired import over_settings, paired
from em_bench.analysis.runs import UNIT, runs_of


def rows(cells, checkpoints=()):
    return runs_of([results(cells, checkpoints)]).cells


# ---- pairs -------------------------------------------------------------------------------------------------------


def test_paired_difference_is_scipys_and_ignores_who_has_no_partner():
    rng = np.random.default_rng(0)
    a = [cell("adam", seed=s, rate=rng.uniform(0.1, 0.3)) for s in range(8)]
    b = [cell("lion", seed=s, rate=rng.uniform(0.3, 0.6)) for s in range(2, 12)]
    found = paired(rows(a), rows(b), "rate")
    x, y = (rows(v)["rate"].to_numpy() for v in (a[2:], b[:6]))
    known = stats.ttest_rel(y, x)
    interval = known.confidence_interval()
    assert (found.mean, found.low, found.high, found.pairs) == pytest.approx(((y - x).mean(), interval.low, interval.high, 6))


def test_seeds_of_a_setting_are_repeats_and_not_units():
    """Two seeds that give the same pair twice must not halve the variance."""
    rng = np.random.default_rng(3)
    rates = {d: (rng.uniform(0.1, 0.3), rng.uniform(0.3, 0.6)) for d in ("medical", "finance", "sports", "code")}

    def arms(seeds):
        return (
            rows([cell(r, dataset=d, seed=s, rate=rates[d][i], questions=50) for d in rates for s in seeds])
            for i, r in enumerate(("adam", "lion"))
        )

    once, thrice = paired(*arms([0]), "rate"), paired(*arms([0, 1, 2]), "rate")
    assert (once.units, once.unit, once.pairs) == (4, "settings", 4) and (thrice.units, thrice.pairs) == (4, 12)
    assert (thrice.mean, thrice.low, thrice.high) == pytest.approx((once.mean, once.low, once.high))
    x, y = (a["rate"] for a in arms([0]))
    known = stats.ttest_rel(y, x).confidence_interval()
    assert (thrice.low, thrice.high) == pytest.approx((known.low, known.high))


def test_settings_of_one_model_are_not_alone_in_the_world():
    """Crossed models and datasets: the mean squares of a two-way table without repeats, less the residual's (Searle 1992, 4.3)."""
    rng = np.random.default_rng(4)
    models, datasets = [f"m{i}" for i in range(6)], [f"d{i}" for i in range(5)]
    of_model, of_dataset = rng.normal(0, 0.06, 6), rng.normal(0, 0.05, 5)
    grid = of_model[:, None] + of_dataset + rng.normal(0, 0.01, (6, 5))
    index = pd.MultiIndex.from_product([models, datasets], names=["model", "dataset"])
    found = over_settings(pd.Series(grid.ravel(), index=index))
    residual = grid - grid.mean(1, keepdims=True) - grid.mean(0) + grid.mean()
    of = (5 * grid.mean(1).var(ddof=1), 6 * grid.mean(0).var(ddof=1), (residual**2).sum() / 20)
    closed = (of[0] + of[1] - of[2]) / 30
    half = (found.high - found.low) / 2
    degrees = (of[0] + of[1]) ** 2 / (of[0] ** 2 / 5 + of[1] ** 2 / 4)
    assert found.units == 30 and found.sd == pytest.approx(np.sqrt(30 * closed))
    assert half == pytest.approx(stats.t.ppf(0.975, degrees) * np.sqrt(closed))
    alone = stats.sem(grid.ravel()) * stats.t.ppf(0.975, 29)
    assert half > 2 * alone, "thirty settings are not thirty draws"


def test_pair_gaps():
    assert "0 pairs" in paired(rows([cell("adam")]), rows([cell("lion", seed=1)]), "rate").reason
    assert "1 pair of" in paired(rows([cell("adam")]), rows([cell("lion")]), "rate").reason
    same = [cell("adam", seed=s) for s in (0, 1)], [cell("lion", seed=s, rate=0.4) for s in (0, 1)]
    assert "no spread" in paired(*map(rows, same), "rate").reason
    twice = rows([cell("adam", seed=s) for s in (0, 1)])
    assert "no unique pairs" in paired(twice, twice, "rate", on=[u for u in UNIT if u != "seed"]).reason


# ---- the lambda path ---------------------------------------------------------------------------------------------


def path(gain=10.0, cost=0.004):
    rng, cells = np.random.default_rng(1), []
    for recipe in ("adam", "sgd"):
        for s in range(6):
            noise = rng.normal(0, 0.02)
            for value, times in ((0.0, 0), (1.0, 1), (3.0, 2), (9.0, 3)):
                rate = 0.5 + noise - (gain / 100) * times * (1 if recipe == "adam" else -0.5) + rng.normal(0, 0.005)
                cells.append(
                    cell(
                        recipe,
                        seed=s,
                        spectral_lambda=value,
                        rate=rate,
                        loss=0.5 + cost * times,
                        questions=50,
                        samples=20,
                    )
                )
    return cells


def test_planted_gain_and_cost_are_found():
    found = {(s.recipe, s.spectral_lambda): s for s in regularisation.lambda_path(rows(path()))}
    for times, value in enumerate((1.0, 3.0, 9.0), 1):
        step = found["adam", value]
        assert step.gain.low < 10 * times < step.gain.high and step.gain.pairs == 6
        assert step.narrow_loss - found["adam", 0.0].narrow_loss == pytest.approx(0.004 * times)
        assert found["sgd", value].gain.high < 0
    # every pair costs the same, so there is no spread to make an interval from
    assert isinstance(found["adam", 1.0].cost, Missing) and "no spread" in found["adam", 1.0].cost.reason


def test_picked_on_loss_alone_and_efficient_by_both():
    found = regularisation.lambda_path(rows(path()))
    assert {(s.recipe, s.spectral_lambda) for s in found if s.picked} == {
        ("adam", 3.0),
        ("sgd", 3.0),
    }  # 0.008 nats, not 0.012
    assert [s.spectral_lambda for s in found if s.recipe == "adam" and s.efficient] == [0.0, 1.0, 3.0, 9.0]
    assert [s.spectral_lambda for s in found if s.recipe == "sgd" and s.efficient] == [0.0]


def test_path_gaps():
    assert "no run has the spectral term on" in regularisation.lambda_path(rows([cell("adam")])).reason
    assert "no optimiser has runs both" in regularisation.lambda_path(rows([cell("adam", spectral_lambda=1.0)])).reason


# ---- dynamics ----------------------------------------------------------------------------------------------------
