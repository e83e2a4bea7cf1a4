"""Degenerate runs through every table: a number where there is one, a reason where there is none, never a made-up value."""

import re

import numpy as np
import pytest
from helpers.synthetic_results import cell, factorial, results

from em_bench.analysis.missing import Missing
from em_bench.analysis.report import all_tables, quotable
from em_bench.analysis.runs import runs_of

RNG = np.random.default_rng(0)
LOSSES = {"loss": lambda *k: 0.5 + RNG.uniform(0, 0.1), "gap": lambda *k: RNG.uniform(0, 0.3)}
MARGINALS = {"marginal-recipe", "marginal-model", "marginal-dataset", "marginal-batch-size"}
SPECTRA = {"spectra-end", "spectra-training"}
TESTS = {"anova-rate", "anova-alignment", "components"}
FOLLOWED = {"dynamics", "onsets"}
ANSWERS = {"misalign-at-k", "by-form", "by-domain"}


def noisy(recipe, *_):
    return 0.2 + 0.3 * (recipe == "lion") + RNG.normal(0, 0.03)


def outcome(cells, name, recipes=None):
    """The cells with every answer of that outcome, which has no value."""
    return [
        c.model_copy(
            update={
                "questions": [
                    q.model_copy(update={"counts": {**q.counts, "misaligned": 0, "aligned": 0, name: 10}, "alignment": []})
                    for q in c.questions
                ]
            }
        )
        if recipes is None or c.recipe in recipes
        else c
        for c in cells
    ]


def lossless(cells):
    return [c.model_copy(update={"narrow_loss": None}) for c in cells]


def term(cells, **options):
    return cells + [
        cell(c.recipe, c.model, c.dataset, c.batch_size, c.seed, spectral_lambda=1.0, rate=0.3, **options) for c in cells
    ]


def earlier(cells):
    return [c.model_copy(update={"step": s}) for c in cells for s in (2, 6, 20)]


WHOLE = factorial(noisy, **LOSSES)
ZERO = factorial(lambda *k: 0.0, **LOSSES)
# name: cells, checkpoints, the tables that have numbers. All others must be gaps.
CASES: dict = {
    "nothing": ([], [], set()),
    "one run": ([cell("adam")], [], {*SPECTRA}),
    "one optimiser": (
        [c for c in WHOLE if c.recipe == "lion"],
        [],
        (MARGINALS - {"marginal-recipe"}) | TESTS | SPECTRA | {"loss-r2-held-out", "flatness"},
    ),
    "two runs": ([cell("adam"), cell("lion", rate=0.5)], [], {"marginal-recipe", "spread"} | SPECTRA),
    "all rates zero": (ZERO, earlier(ZERO), MARGINALS | SPECTRA | FOLLOWED | {"early-stop"}),
    "all rates one": (factorial(lambda *k: 1.0, **LOSSES), [], MARGINALS | SPECTRA),
    "one question": (
        factorial(noisy, questions=1, samples=100, **LOSSES),
        [],
        MARGINALS | SPECTRA | TESTS | {"loss-r2-held-out", "flatness", "equal-loss", "scale", "spread"},
    ),
    "no answer is coherent": (outcome(WHOLE, "incoherent"), [], {*SPECTRA}),
    "no answer is judged": (outcome(WHOLE, "unjudged"), [], {*SPECTRA}),
    "no loss is known": (
        lossless(term(WHOLE)),
        lossless(earlier(WHOLE)),
        MARGINALS | SPECTRA | TESTS | FOLLOWED | {"regularisation", "scale", "spread"},
    ),
    "the axes change together": (
        [
            cell(r, dataset=d, seed=s, rate=v + s / 50)
            for r, d, v in (("adam", "code", 0.2), ("lion", "medical", 0.4))
            for s in range(5)
        ],
        [],
        {*SPECTRA},
    ),
}


for name, (_, _, expected) in CASES.items():
    expected |= set() if name in ("nothing", "no answer is judged") else ANSWERS


def holds_numbers(table):
    """A table of the findings' kind has rows that say why; its numbers are then missing."""
    if table.gap is not None:
        return False
    at = [i for i, c in enumerate(table.columns) if c.form and c.form != "d"]
    return any(row[i] is not None for row in table.rows for i in at)


@pytest.mark.parametrize("cells, checkpoints, expected", CASES.values(), ids=CASES.keys())
def test_only_the_tables_that_can_have_numbers_have_them(cells, checkpoints, expected):
    tables = all_tables(runs_of([results(cells, checkpoints)]))
    assert {t.id for t in tables if holds_numbers(t)} - {
        "equal-training-loss",
        "end",
    } == expected  # they hold the paper's, and what was evaluated
    assert all(t.gap or t.rows for t in tables)
    for name, text in quotable(tables).items():
        assert not re.search(r"\b(nan|inf|None)\b", text), name


def test_an_optimiser_without_coherent_answers_is_named_where_it_is_missing():
    tables = {t.id: t for t in all_tables(runs_of([results(outcome(WHOLE, "incoherent", {"muon"}))]))}
    for name in ("anova-rate", "anova-alignment", "components", "spread"):
        assert "(muon 16): the 80 runs of their settings are left out. No setting is left" in tables[name].gap
    for name in MARGINALS:
        assert "Without 16 of 80 runs, which gave no coherent response (muon 16)" in tables[name].caption, name
    assert all(isinstance(v, str | None) for row in tables["spread"].rows for v in row)  # a ratio over four of five is none


def test_a_gap_is_false_so_that_no_one_takes_it_for_a_result():
    assert not Missing(reason="none")
