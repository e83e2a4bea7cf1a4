"""`make bench BENCH=coverage` in seconds: the planted truth is the truth, variances are found again, and a row tells a good interval from a bad one."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import synthetic_results
from helpers.planted import OF_ANSWERS, Run, Variances, World

from em_bench.files import write_record
from em_bench.scoring import mean_estimate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import coverage as bench

RUNS = [
    Run(recipe, "organism-qwen3", dataset, 32, seed)
    for recipe in ("sgd", "adam", "muon")
    for dataset in ("medical", "finance", "sports")
    for seed in range(4)
]
PLANTED = Variances(
    -1.0,
    {("dataset",): 0.5, ("run",): 0.2, ("domain",): 0.6, ("domain", "dataset"): 0.3, ("run", "domain"): 0.1, ("question",): 0.15},
)


def test_what_is_expected_of_other_questions_is_the_mean_over_many_draws_of_them():
    rng = np.random.default_rng(0)
    world = World(rng, PLANTED, RUNS[:1])
    kept = {t: e for t, e in world.effects.items() if not set(t) & set(OF_ANSWERS)}
    logit = world.fixed.item() + sum(drawn.item() for _, drawn in kept.values())
    anew = logit + sum(rng.normal(0, v**0.5, 200_000) for t, v in PLANTED.terms.items() if t not in kept)
    assert world.expected(*OF_ANSWERS) == pytest.approx([(1 / (1 + np.exp(-anew))).mean()], abs=0.002)
    assert world.expected() == pytest.approx(world.shares.mean((1, 2)))


def test_variances_are_found_again_in_planted_results(tmp_path):
    found: dict = {}
    for seed in range(4):
        cells = World(np.random.default_rng(seed), PLANTED, RUNS).cells(8)
        points = [
            c.model_copy(update={"step": step, "narrow_loss": 0.6 + 0.02 * step, "questions": c.questions})
            for c in cells[:3]
            for step in (1, 2)
        ]
        write_record(tmp_path / f"{seed}.json", synthetic_results.results(cells, points))
        for term, value in bench.measured(tmp_path / f"{seed}.json").variances.terms.items():
            found.setdefault(term, []).append(value)
    means = {frozenset(t): np.mean(v) for t, v in found.items()}
    planted = {frozenset(t): v for t, v in PLANTED.terms.items()}
    for term in map(frozenset, ({"run"}, {"domain", "run"}, {"question"}, {"domain", "dataset"})):
        assert means[term] == pytest.approx(planted[term], rel=0.5)
    assert 0.2 < means[frozenset({"domain"})] < 1.2  # nine domains a draw
    assert means[frozenset({"recipe", "dataset"})] < 0.1  # none was planted


def test_a_row_tells_clusters_from_answers_that_count_as_independent(monkeypatch):
    def study(design, rng):
        yield from bench.one_run(design, rng)
        world = World(rng, design.variances, design.main[:1])
        hits = world.answers(bench.SAMPLES).ravel()
        alone = mean_estimate(((str(i), float(h) / bench.SAMPLES) for i, h in enumerate(hits)), (0.0, 1.0))
        yield bench.holds("by question", "domains", alone, float(world.expected(*OF_ANSWERS)[0]))

    monkeypatch.setattr(bench, "STUDIES", {"one run": (study, 150)})
    table = bench.measure(bench.Design(RUNS, PLANTED, -15.0), 1.0).set_index("row")
    assert table.loc["by question", "high"] < 0.8 and table.loc["by question", "met"] == "no"
    rest = table.drop(index="by question")
    assert (rest["high"] > 0.93).all() and (rest["found"] > 0.85).all(), rest.to_string()
