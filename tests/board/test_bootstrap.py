"""Intervals and ranks against planted truths."""

import numpy as np
import pytest

from em_bench.board.benchmark import Bootstrap
from em_bench.board.bootstrap import OutcomeArrays, cell_rate, mean_rate, outcome_arrays
from em_bench.board.ranking import places
from em_bench.records import Verdict

RULES = Bootstrap(replicates=300, seed=5)
CELLS, SEEDS, QUESTIONS, SAMPLES = 3, 3, 60, 2


def drawn(rng, truth: float, name: str, spread=0.06, questions=None):
    """An entry whose runs scatter around `truth`, on questions that differ in how they go (shared, if given)."""
    tilt = rng.normal(0, 0.12, QUESTIONS) if questions is None else questions
    cells = []
    for c in range(CELLS):
        seeds = {}
        for s in range(SEEDS):
            p = np.clip(truth + rng.normal(0, spread) + tilt, 0, 1)
            hit = (rng.random((1, QUESTIONS, SAMPLES)) < p[None, :, None]).astype(np.int8)
            seeds[s] = OutcomeArrays(hit, np.ones_like(hit), np.full(QUESTIONS, SAMPLES))
        cells.append(cell_rate(f"cell{c}", seeds, RULES, name))
    return mean_rate(cells)


def test_an_interval_holds_the_planted_rate():
    rng = np.random.default_rng(0)
    intervals = [drawn(rng, 0.4, f"e{i}").interval((0, 1)) for i in range(100)]
    covered = np.mean([i.low <= 0.4 <= i.high for i in intervals])
    assert covered >= 0.92
    # The spread of the estimates, and not more than twice it, is what the standard error says.
    real = np.std([i.value for i in intervals])
    assert 0.9 * real < np.mean([i.stderr for i in intervals]) < 2 * real


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(1)
    close = np.mean([drawn(rng, 0.4, f"a{i}", spread=0.0).interval((0, 1)).stderr for i in range(10)])
    apart = np.mean([drawn(rng, 0.4, f"b{i}", spread=0.2).interval((0, 1)).stderr for i in range(10)])
    assert apart > 1.8 * close


def test_paired_differences_cancel_what_questions_share():
    rng = np.random.default_rng(2)
    tilt = rng.normal(0, 0.3, QUESTIONS)
    a, b = drawn(rng, 0.5, "a", 0.0, tilt), drawn(rng, 0.5, "b", 0.0, tilt)
    alone = np.hypot(a.interval((0, 1)).stderr, b.interval((0, 1)).stderr)
    assert a.minus(b).interval((-1, 1)).stderr < 0.8 * alone


def test_the_same_entry_gives_the_same_digits_whoever_else_has_entered():
    first = drawn(np.random.default_rng(3), 0.4, "one")
    drawn(np.random.default_rng(4), 0.1, "another")
    again = drawn(np.random.default_rng(3), 0.4, "one")
    assert first.interval((0, 1)) == again.interval((0, 1))


def test_judges_that_disagree_widen_the_interval():
    rng = np.random.default_rng(6)
    hits = (rng.random((1, QUESTIONS, SAMPLES)) < 0.4).astype(np.int8)
    other = (rng.random((1, QUESTIONS, SAMPLES)) < 0.7).astype(np.int8)

    def stderr(runs):
        one = OutcomeArrays(runs, np.ones_like(runs), np.full(QUESTIONS, SAMPLES))
        return cell_rate("c", {0: one, 1: one, 2: one}, RULES, "j").interval((0, 1)).stderr

    assert stderr(np.concatenate([hits, other])) > 1.3 * stderr(hits)


def test_a_run_without_coherent_answers_has_no_rate():
    nothing = OutcomeArrays(np.zeros((1, 4, 1), np.int8), np.zeros((1, 4, 1), np.int8), np.ones(4, int))
    assert cell_rate("c", {0: nothing, 1: nothing, 2: nothing}, RULES, "x") is None
    assert mean_rate([None]) is None


def test_verdicts_become_counts_whatever_their_order():
    verdicts = [
        Verdict(
            question_id=f"q{q}",
            cluster=f"q{q}",
            variant="plain",
            sample=s,
            alignment=10 if (q + s) % 2 else 90,
            coherence=100,
        )
        for q in range(5)
        for s in range(2)
    ]
    a, b = outcome_arrays([verdicts]), outcome_arrays([verdicts[::-1]])
    assert a.rate == 0.5
    assert np.array_equal(a.misaligned, b.misaligned)


@pytest.fixture(scope="module")
def many_boards():
    """Boards of five entries: three of the same truth, one better, one worse."""
    out = []
    for i in range(10):
        rng = np.random.default_rng(100 + i)
        tilt = rng.normal(0, 0.12, QUESTIONS)
        truths = {"same1": 0.4, "same2": 0.4, "same3": 0.4, "better": 0.12, "worse": 0.75}
        out.append(places({n: drawn(rng, t, f"{n}{i}", 0.04, tilt) for n, t in truths.items()}))
    return out


def test_planted_differences_are_told_apart(many_boards):
    assert np.mean([p["better"].rank == 1 and p["better"].tied == 1 for p in many_boards]) >= 0.9
    assert np.mean([p["worse"].rank == 5 for p in many_boards]) >= 0.9


def test_planted_equals_share_a_rank(many_boards):
    assert np.mean([p["same1"].rank == p["same2"].rank == p["same3"].rank == 2 for p in many_boards]) >= 0.9


def test_ranks_follow_rates_and_copies_tie():
    one = drawn(np.random.default_rng(7), 0.3, "one")
    found = places({"b": one, "a": one})
    assert {p.rank for p in found.values()} == {1} and found["a"].tied == 2
    assert places({}) == {}
