"""The mixed model: planted effects, independent implementations, gaps."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from helpers.synthetic_results import cell, factorial, results
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm
from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

from em_bench.analysis import mixed
from em_bench.analysis.runs import runs_of

EFFECT = {"sgd": 0.0, "adam": 0.1, "adamw": 0.1, "lion": 0.3, "muon": -0.05}


def main(cells):
    return runs_of([results(cells)]).main


def planted(recipe, model, dataset, batch, seed):
    return 0.3 + EFFECT[recipe] + 0.02 * (model == "organism-qwen3-small") + 0.1 * (dataset == "code") + 0.01 * seed


def simulated(sigma=1.0, questions=60, samples=10, seed=3):
    rng = np.random.default_rng(seed)
    u = rng.normal(0, sigma, questions)
    cells = []
    for recipe, logit in (("adam", -1.0), ("lion", 0.5), ("muon", -2.0)):
        for s in (0, 1):
            cells.append(
                cell(
                    recipe,
                    seed=s,
                    misaligned=rng.binomial(samples, expit(logit + u)),
                    questions=questions,
                    samples=samples,
                )
            )
    return main(cells)


def test_mixed_model_finds_what_was_planted():
    found = mixed.mixed_logit(simulated())
    by = {t.level: t for t in found.terms}
    for level, truth in (("lion", 1.5), ("muon", -1.0)):
        assert abs(by[level].logit - truth) < 3 * by[level].stderr < 0.75
    assert found.question_sd == pytest.approx(1.0, rel=0.25) and found.p["recipe"] < 0.001


def test_marginal_likelihood_is_that_of_numerical_integration():
    rng = np.random.default_rng(0)
    x, y = np.column_stack([np.ones(3), [0, 1, 0], [0, 0, 1]]), rng.integers(0, 8, (3, 5)).astype(float)
    n, beta, sigma = np.full((3, 5), 9.0), np.array([-0.5, 0.3, 1.0]), 1.7

    def one(g):
        def f(u):
            p = expit(x @ beta + sigma * u)
            return np.prod(p ** y[:, g] * (1 - p) ** (n[:, g] - y[:, g])) * norm.pdf(u)

        return np.log(quad(f, -10, 10, epsabs=0, epsrel=1e-10, limit=200)[0])

    value, gradient = mixed.log_likelihood(x, y, n, beta, sigma, nodes=41)
    assert value == pytest.approx(sum(map(one, range(5))), rel=1e-9)
    for i in range(4):
        h = np.zeros(4)
        h[i] = 1e-5
        up, down = (mixed.log_likelihood(x, y, n, beta + s * h[:3], sigma + s * h[3], nodes=41)[0] for s in (1, -1))
        assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-6)


def test_agrees_with_the_bayesian_mixed_model_of_statsmodels():
    table = simulated(questions=40)
    found = mixed.mixed_logit(table)
    rows = [
        {"recipe": r, "question": q.cluster, "hit": hit}
        for r, c in zip(table["recipe"], table["cell"], strict=True)
        for q in c.questions
        for hit in [1] * q.counts["misaligned"] + [0] * q.counts["aligned"]
    ]
    other = BinomialBayesMixedGLM.from_formula(
        "hit ~ C(recipe)", {"q": "0 + C(question)"}, pd.DataFrame(rows), vcp_p=2, fe_p=10
    ).fit_map()
    theirs = dict(zip(other.model.exog_names, other.fe_mean, strict=True))
    for t in found.terms:
        assert t.logit == pytest.approx(theirs[f"C(recipe)[T.{t.level}]"], abs=0.06)
    assert np.log(found.question_sd) == pytest.approx(float(other.vcp_mean[0]), abs=0.2)


def test_without_differences_between_questions_it_is_the_quasibinomial_regression():
    """statsmodels' binomial GLM on the totals of the runs, scaled by Pearson's chi squared."""
    rng = np.random.default_rng(8)
    # every question of a run has the same hits: nothing is left for a random effect
    cells = [
        cell(r, seed=s, misaligned=[int(rng.integers(low, low + 4))] * 30, questions=30)
        for r, low in (("adam", 1), ("lion", 4), ("muon", 2))
        for s in range(5)
    ]
    table = main(cells)
    found = mixed.mixed_logit(table)
    x = np.column_stack([np.ones(15), table["recipe"] == "lion", table["recipe"] == "muon"]).astype(float)
    shares, valued = table["misaligned"] / table["valued"], table["valued"].to_numpy()
    known = sm.GLM(shares, x, family=sm.families.Binomial(), var_weights=valued).fit(scale="X2")
    assert found.question_sd < 0.01 and found.dispersion == pytest.approx(known.scale, rel=1e-3) and known.scale > 1
    assert [t.logit for t in found.terms] == pytest.approx(known.params[1:], abs=1e-4)
    assert [t.stderr for t in found.terms] == pytest.approx(known.bse[1:], rel=1e-3)
    test = known.f_test(np.eye(3)[1:])
    assert (found.f["recipe"], found.p["recipe"]) == pytest.approx((float(test.fvalue), float(test.pvalue)), rel=2e-3)


def test_a_search_that_ends_before_the_maximum_is_a_gap(monkeypatch):
    whole = mixed.minimize
    monkeypatch.setattr(mixed, "minimize", lambda *a, options, **k: whole(*a, options={"maxiter": 2}, **k))
    assert "did not converge" in mixed.mixed_logit(simulated()).reason


def test_runs_that_differ_more_than_their_responses_widen_the_interval():
    rng = np.random.default_rng(5)
    cells = [cell(r, seed=s, rate=rng.uniform(0.1, 0.6), questions=40) for r in ("adam", "lion") for s in range(6)]
    found = mixed.mixed_logit(main(cells))
    assert found.dispersion > 10 and found.p["recipe"] > 0.001


def test_mixed_gaps():
    assert "same outcome" in mixed.mixed_logit(main(factorial(lambda *k: 0.0))).reason
    assert "scatter between runs" in mixed.mixed_logit(main([cell("adam"), cell("lion", rate=0.5)])).reason
    assert "muon: every response has the same outcome" in mixed.mixed_logit(main([cell("adam"), cell("muon", rate=0)])).reason
    assert "no axis varies" in mixed.mixed_logit(main([cell("adam"), cell("adam", seed=1)])).reason
    assert (
        "one question"
        in mixed.mixed_logit(
            main([cell(r, seed=s, questions=1, rate=v) for r, v in (("adam", 0.2), ("lion", 0.4)) for s in (0, 1)])
        ).reason
    )
