"""Verdicts on planted effects, sample sizes against a closed form, and gaps that stay gaps."""

import re
from collections import Counter
from itertools import product

import numpy as np
import pytest
from helpers.synthetic_results import RECIPES, cell, factorial, results
from statsmodels.stats.power import TTestPower

from em_bench.analysis import power
from em_bench.analysis.claims import CLAIMS, REMOVED, findings
from em_bench.analysis.finding import above, below, inside
from em_bench.analysis.preconditions import NEEDS
from em_bench.analysis.published_values import FACTS, OPTIMISERS, SIZES
from em_bench.analysis.runs import runs_of

PAPERS = {"sgd": 0.05, "adam": 0.14, "adamw": 0.14, "lion": 0.37, "muon": 0.053}


MODELS = ("Qwen3-8B", "Qwen3-14B-like")
NEEDED = {
    "lion-adam": ("matched narrow loss", "coherent answers"),
    "muon-adam": ("matched narrow loss", "coherent answers"),
    "qwen3-4b": ("open models", "the paper's four optimisers", "coherent answers"),
    "lion-code": (),
    "loss-r2": ("coherent answers",),
    "stratified-r2": ("coherent answers",),
    "sgd-lowest": ("coherent answers",),
    "batch-size": ("equal epochs", "16-fold batch sizes", "coherent answers"),
    "shared-early": ("coherent answers",),
    "part-late": ("coherent answers",),
    "loss-order": ("coherent answers",),
    "term-adam": ("coherent answers",),
    "term-lion": ("coherent answers",),
    "term-muon": ("coherent answers",),
    "term-sgd": ("coherent answers",),
    "code-clean": ("EM without the term", "coherent answers"),
}


def of(cells, checkpoints=()):
    return {f.id: f for f in findings(runs_of([results(cells, checkpoints)]))}


def world(rates, gains=None, code_share=0.0, seed=0, models=MODELS):
    """The main sweep with these rates an optimiser, the term gaining `gains` points, noise of two points a run."""
    rng = np.random.default_rng(seed)
    options = {"questions": 40, "samples": 20}
    cells = factorial(
        lambda r, *k: rates[r] + rng.normal(0, 0.02), models=models, loss=lambda *k: 0.5 + rng.uniform(0, 0.04), **options
    )
    if code_share:
        cells = [
            c.model_copy(update={"questions": [q.model_copy(update={"code": round(20 * code_share)}) for q in c.questions]})
            if (c.recipe, c.dataset) == ("lion", "code")
            else c
            for c in cells
        ]
    cells = [c.model_copy(update={"studies": ["dynamics"] if c.recipe == "sgd" else ["dynamics", "main"]}) for c in cells]
    for recipe, gain in (gains or {}).items():
        for c in [c for c in cells if c.recipe == recipe and not c.spectral_lambda]:
            rate = np.clip(c.score.overall.misaligned_rate.value - gain / 100 + rng.normal(0, 0.01), 0, 1)
            loss = c.narrow_loss + 0.004 + rng.normal(0, 0.001)
            on = cell(recipe, c.model, c.dataset, c.batch_size, c.seed, spectral_lambda=1.0, rate=rate, loss=loss, **options)
            cells.append(on.model_copy(update={"studies": ["regularisation"]}))
    return cells


def test_the_list_of_findings_and_what_each_needs():
    """A finding that compares unlike things must not come back: those of before are named with the reason."""
    assert {c.id: c.needs for c in CLAIMS} == NEEDED and set(FACTS) == set(NEEDED)
    assert not set(REMOVED) & set(NEEDED) and {"adamw-adam", "optimiser-size", "spread"} < set(REMOVED)
    assert {need for needs in NEEDED.values() for need in needs} == set(NEEDS)
    studies = {name: FACTS[name].study for name in NEEDED}
    assert Counter(studies.values()) == {"main": 4, "loss-alignment": 4, "dynamics": 3, "regularisation": 5}


GAINS = {"adam": 6.6, "lion": 8.0, "muon": 2.1, "sgd": -3.5}
PLANTED = ["lion-adam", "muon-adam", *(f"term-{r}" for r in GAINS), "lion-code"]


def test_a_world_like_the_papers_reproduces():
    found = of(world(PAPERS, GAINS, code_share=0.45))
    assert {n: found[n].verdict for n in PLANTED} == dict.fromkeys(PLANTED, "reproduces")
    assert found["lion-adam"].value == pytest.approx(23, abs=1.5)
    assert found["qwen3-4b"].verdict == "cannot tell" and found["qwen3-4b"].value is None


def test_the_same_on_organisms_is_the_same_sign_and_no_level():
    found = of(world(PAPERS, GAINS, code_share=0.45, models=("organism-qwen3", "organism-qwen3-small")))
    assert {n: found[n].verdict for n in PLANTED} == dict.fromkeys(PLANTED, "same sign on the organism")


def test_an_opposite_world_does_not():
    rates = {"sgd": 0.05, "adam": 0.3, "adamw": 0.5, "lion": 0.1, "muon": 0.4}
    gains = {"adam": -6.6, "lion": -8.0, "muon": -5, "sgd": 6}
    names = ["lion-adam", "muon-adam", *(f"term-{r}" for r in gains), "code-clean", "lion-code"]
    found = of(world(rates, gains))
    assert {n: found[n].verdict for n in names} == dict.fromkeys(names, "does not")
    found = of(world(rates, gains, models=("organism-qwen3", "organism-qwen3-small")))
    assert {n: found[n].verdict for n in names} == dict.fromkeys(names, "other sign on the organism")


def test_optimisers_that_did_not_learn_are_not_compared():
    cells = [
        c.model_copy(update={"narrow_loss": c.narrow_loss + 0.3}) if c.recipe in ("lion", "muon") else c
        for c in world({**PAPERS, "lion": 0.01})
    ]
    found = of(cells)
    for name in ("lion-adam", "muon-adam"):
        assert found[name].verdict == "cannot tell" and "nats apart" in found[name].why and found[name].value is not None


def test_a_broken_model_is_not_compared():
    """Lion has 80 % coherent answers, the others all: the misaligned rate among the coherent says nothing of it."""

    def broken(c):
        counts = [q.model_copy(update={"counts": {**q.counts, "incoherent": 5}}) for q in c.questions]
        return c.model_copy(update={"questions": counts}) if c.recipe == "lion" else c

    found = of([broken(c) for c in world(PAPERS, GAINS)])
    for name in ("lion-adam", "term-lion"):
        assert found[name].verdict == "cannot tell" and "the model is broken" in found[name].why
        assert (found[name].value, found[name].ours, found[name].beside) == (None, "no number", "")
    assert found["muon-adam"].verdict == found["term-adam"].verdict == "reproduces"
    assert re.search(r"adam: [\d.]+ % of asked, .* 100.0 % coherent, loss 0.5\d\d, F/N", found["muon-adam"].beside)


def test_one_broken_setting_is_not_averaged_away():
    """Adam at batch 2 has 89.9 % coherent answers, at batch 32 all: the mean of both hides it, and a finding must not."""

    def broken(c):
        if (c.recipe, c.batch_size) != ("adam", 8):
            return c
        n = sum(sum(q.counts.values()) for q in c.questions)
        first = c.questions[0].model_copy(update={"counts": {**c.questions[0].counts, "incoherent": round(n * 0.101 / 0.899)}})
        return c.model_copy(update={"questions": [first, *c.questions[1:]]})

    found = of([broken(c) for c in world(PAPERS, GAINS)])["muon-adam"]
    assert found.verdict == "cannot tell" and "adam at rate" in found.why and found.value is None


def test_what_was_not_there_is_not_removed():
    """Adam shows 1 % on code without the term: that the term leaves none is no finding."""
    found = of(world({**PAPERS, "adam": 0.01}, {"adam": 1.0}))["code-clean"]
    assert found.verdict == "cannot tell" and "nothing to remove" in found.why
    there = of(world({**PAPERS, "adam": 0.2}, {"adam": 20.0}))["code-clean"]
    assert there.verdict == "reproduces" and there.value < 2


def batches(small=2, large=32, steps=(896, 56), drop=10.0):
    """Runs of the loss-alignment study that differ in their batch size alone."""
    rng, out = np.random.default_rng(5), []
    for dataset, (batch, n) in product(("medical", "finance", "sports"), zip((small, large), steps, strict=True)):
        for rate in (1e-4, 3e-4, 1e-3):
            made = cell(
                dataset=dataset, batch_size=batch, learning_rate=rate, model="Qwen3-8B", samples=20,
                rate=0.3 + (batch == small) * drop / 100 + rng.normal(0, 0.02),
            )  # fmt: skip
            out.append(made.model_copy(update={"steps": n, "studies": ["loss-alignment"]}))
    return out


def test_batch_sizes_are_compared_at_equal_epochs_and_sixteen_fold():
    found = of(batches())["batch-size"]
    assert found.verdict == "reproduces" and found.value == pytest.approx(-10, abs=2)
    assert "unequal numbers of rows" in of(batches(steps=(60, 60)))["batch-size"].why
    assert "not 16-fold" in of(batches(small=8, steps=(224, 56)))["batch-size"].why


def along(offsets, seed=0, noise=0.3, ends=None):
    """Runs of the dynamics study on one curve through ln loss, an optimiser departing from it by its offset late in training."""
    rng, ended, early = np.random.default_rng(seed), [], []
    for recipe, offset in offsets.items():
        for dataset in ("medical", "finance", "sports", "code"):
            shift = rng.normal(0, 0.5)
            for step, x in ((2, 1.0), (8, 0.7), (20, 0.4), (None, (ends or {}).get(recipe, -0.2))):
                alignment = 70 + 15 * x + shift + (offset if step is None else 0) + rng.normal(0, noise)
                made = cell(recipe, dataset=dataset, model="Qwen3-8B", step=step, samples=1000, questions=1,
                            misaligned=[round(1000 - 10 * alignment)])  # fmt: skip
                made = made.model_copy(update={"train_loss": float(np.exp(x)), "studies": ["dynamics"]})
                (ended if step is None else early).append(made)
    return ended, early


def test_curves_that_part_late():
    found = of(*along({"adam": 0, "lion": -8, "muon": 3}))
    assert found["shared-early"].verdict == found["part-late"].verdict == "reproduces"
    assert found["part-late"].value == pytest.approx(11, abs=1.5)
    same = of(*along({"adam": 0, "lion": 3, "muon": -8}))
    assert same["part-late"].verdict == "does not"


def test_the_order_of_losses_and_of_alignments():
    """Lion ends at the higher loss and the lower alignment; then all optimisers on one curve, where loss predicts the order."""
    against = of(*along({"adam": 0, "lion": -12, "muon": 3}, ends={"muon": -0.2, "adam": -0.1, "lion": 0.1}))["loss-order"]
    assert against.verdict == "reproduces" and against.value < 0
    along_one = of(*along({"adam": 0, "lion": 0, "muon": 0}, ends={"muon": -0.6, "adam": -0.2, "lion": 0.2}))["loss-order"]
    assert along_one.verdict == "does not" and along_one.value == 1


def lines(sgd):
    rng, out = np.random.default_rng(3), []
    for recipe, (at, slope) in {"sgd": (sgd, 50), "adam": (78, 70), "lion": (72, 78)}.items():
        for i, x in enumerate(np.linspace(0.1, 0.8, 8)):
            alignment = at + slope * (x - 0.5) + rng.normal(0, 0.5)
            made = cell(recipe, dataset=f"d{i}", model="Qwen3-8B", questions=1, samples=1000,
                        misaligned=[round(1000 - 10 * np.clip(alignment, 0, 100))])  # fmt: skip
            out.append(made.model_copy(update={"train_loss": float(np.exp(x)), "studies": ["loss-alignment"]}))
    return out


def test_sgd_against_the_next_lowest_at_one_training_loss():
    found = of(lines(sgd=66))["sgd-lowest"]
    assert found.verdict == "reproduces" and found.value == pytest.approx(-6, abs=1.5) and "against lion" in found.ours
    assert of(lines(sgd=79))["sgd-lowest"].verdict == "does not"
    short = [c for c in lines(sgd=66) if c.recipe != "lion" or c.train_loss < np.exp(0.45)]
    assert "lion has no run above" in of(short)["sgd-lowest"].why


def test_a_planted_null_is_mostly_not_told_and_says_how_many():
    told = 0
    for seed in range(5):
        found = of(world(dict.fromkeys(RECIPES, 0.2), seed=seed))
        for name in ("lion-adam", "muon-adam"):
            told += found[name].verdict != "cannot tell"
            assert found[name].verdict != "cannot tell" or re.search(r"\d+ settings.* \(has 4\)", found[name].needed)
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
    assert max(rates) / min(rates) == pytest.approx(7.0, abs=0.1)  # its abstract
