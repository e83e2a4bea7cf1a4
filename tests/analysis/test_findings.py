"""Verdicts on planted effects, sample sizes against a closed form, and gaps that stay gaps."""

import re

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower
from synthetic import RECIPES, cell, factorial, results

from em_bench.analysis import power
from em_bench.analysis.claims import findings
from em_bench.analysis.paper import FACTS, OPTIMISERS, SIZES
from em_bench.analysis.rules import above, around, below, inside
from em_bench.analysis.runs import runs_of

PAPERS = {"sgd": 0.05, "adam": 0.14, "adamw": 0.14, "lion": 0.37, "muon": 0.053}


def of(cells, checkpoints=()):
    return {f.id: f for f in findings(runs_of([results(cells, checkpoints)]))}


def world(rates, gains=None, code_share=0.0, seed=0, term=True):
    """A sweep with these rates an optimiser, the term gaining `gains` points, noise of two points a run."""
    rng = np.random.default_rng(seed)
    options = {"questions": 40, "samples": 20}
    cells = factorial(lambda r, *k: rates[r] + rng.normal(0, 0.02), loss=lambda *k: 0.5 + rng.uniform(0, 0.1), **options)
    if code_share:
        cells = [
            c.model_copy(update={"questions": [q.model_copy(update={"code": round(20 * code_share)}) for q in c.questions]})
            if (c.recipe, c.dataset) == ("lion", "code")
            else c
            for c in cells
        ]
    for recipe, gain in (gains or {}).items():
        for c in [c for c in cells if c.recipe == recipe and not c.spectral_lambda]:
            rate = np.clip(c.score.overall.misaligned_rate.value - gain / 100 + rng.normal(0, 0.01), 0, 1)
            loss = c.narrow_loss + 0.004 + rng.normal(0, 0.001)
            cells.append(
                cell(
                    recipe,
                    c.model,
                    c.dataset,
                    c.batch_size,
                    c.seed,
                    spectral_lambda=1.0,
                    rate=rate,
                    loss=loss,
                    **options,
                )
            )
    return cells


def test_a_world_like_the_papers_reproduces():
    found = of(world(PAPERS, {"adam": 6.6, "lion": 8.0, "muon": 2.1, "sgd": -3.5}, code_share=0.45))
    expected = [
        "lion-adam",
        "muon-adam",
        "adamw-adam",
        "spread",
        "optimiser-size",
        "term-adam",
        "term-lion",
        "term-muon",
        "term-sgd",
        "lion-code",
    ]
    assert {n: found[n].verdict for n in expected} == dict.fromkeys(expected, "reproduces")
    assert found["lion-adam"].value == pytest.approx(23, abs=1.5)
    assert found["spread"].low < 7 < found["spread"].high
    assert found["stratified-r2"].verdict == "reproduces"  # all variance lies between optimisers
    assert found["loss-r2"].verdict == "does not"  # the planted loss explains nothing
    assert found["qwen3-4b"].verdict == "cannot tell" and found["qwen3-4b"].value is None


def test_an_opposite_world_does_not():
    rates = {"sgd": 0.05, "adam": 0.3, "adamw": 0.5, "lion": 0.1, "muon": 0.4}
    found = of(world(rates, {"adam": -6.6, "lion": -8.0, "muon": -5, "sgd": 3.5}))
    names = [
        "lion-adam",
        "muon-adam",
        "adamw-adam",
        "term-adam",
        "term-lion",
        "term-muon",
        "term-sgd",
        "code-clean",
        "lion-code",
    ]
    assert {n: found[n].verdict for n in names} == dict.fromkeys(names, "does not")


def test_optimisers_that_did_not_learn_are_not_compared():
    cells = [
        c.model_copy(update={"narrow_loss": c.narrow_loss + 0.3}) if c.recipe in ("lion", "muon") else c
        for c in world({**PAPERS, "lion": 0.01})
    ]
    found = of(cells)
    for name in ("lion-adam", "muon-adam", "spread", "optimiser-size"):
        assert found[name].verdict == "cannot tell" and "nats apart" in found[name].why
        assert found[name].needed == "runs at matched loss" and found[name].value is not None
    assert found["adamw-adam"].verdict == "reproduces"


def test_a_clean_code_dataset_is_seen():
    rates = {**PAPERS, "adam": 0.0}
    found = of([c for c in world(rates, {"adam": 3.0, "lion": 1.0}) if c.recipe in ("adam", "lion")])
    assert found["code-clean"].value < 3


def test_a_planted_null_is_mostly_not_told_and_says_how_many():
    told = 0
    for seed in range(5):
        found = of(world(dict.fromkeys(RECIPES, 0.2), seed=seed))
        for name in ("lion-adam", "muon-adam"):
            told += found[name].verdict != "cannot tell"
            assert found[name].verdict != "cannot tell" or re.search(r"\d+ settings.* \(has 8\)", found[name].needed)
    assert told <= 3  # of 10 at a level of 5 %


def test_sample_size_is_that_of_the_closed_form():
    for effect, sd in ((6.6, 12.0), (-3.5, 4.0), (2.1, 20.0)):
        found = power.units_needed(above(0.0) if effect > 0 else below(0.0), effect, sd)
        known = TTestPower().solve_power(abs(effect) / sd, alpha=0.05, power=0.8)
        assert found == pytest.approx(known, rel=0.08, abs=2)
    assert power.units_needed(above(0.0), 0.0, 1.0) is None


@pytest.mark.parametrize(
    ("rule", "yes", "no", "open_"),
    [
        (above(0.0), (1, 2), (-2, -1), (-1, 1)),
        (below(2.0), (0, 1), (3, 4), (1, 3)),
        (inside(3.0), (-2, 2), (4, 9), (-4, 1)),
        (around(7.0, 4.0), np.log((4, 12)), np.log((8, 12)), np.log((2, 40))),
    ],
)
def test_rules(rule, yes, no, open_):
    assert (rule(*yes), rule(*no), rule(*open_)) == ("reproduces", "does not", "cannot tell")


DEGENERATE = {
    "nothing": [],
    "one optimiser": factorial(lambda *k: 0.2, recipes=("lion",)),
    "one run": [cell("adam")],
    "all rates zero": factorial(lambda *k: 0.0),
    "no partner": [cell("adam", dataset="medical"), cell("lion", dataset="code"), cell("muon", dataset="sports")],
}


@pytest.mark.parametrize("cells", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_runs_give_no_number(cells):
    found = of(cells)
    assert len(found) == len(FACTS)
    for f in found.values():
        if f.value is None:
            assert f.verdict == "cannot tell" and f.why and f.ours == "no number"
    numbers = {n for n, f in found.items() if f.value is not None}
    assert numbers <= {"lion-code"}  # a share of answers needs a single run


def test_the_papers_own_marginals_are_consistent():
    rates = [sum(map(float, v.split(" to "))) / len(v.split(" to ")) for v in OPTIMISERS.values() if v]
    sizes = [float(v) for v in SIZES.values()]
    assert np.mean(rates) == pytest.approx(np.mean(sizes), abs=0.05)  # the protocol's own check
    assert FACTS["optimiser-size"].number == pytest.approx(np.ptp(rates) - np.ptp(sizes))
    assert max(rates) / min(rates) == pytest.approx(FACTS["spread"].number, abs=0.1)
