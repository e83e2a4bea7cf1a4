"""Samples judged again, gates, the ledger's states."""

from types import SimpleNamespace

import pytest
from helpers import synthetic_entries as synthetic
from helpers.verified import rerun

from em_bench.board.benchmark import load_benchmark
from em_bench.board.column_show import show_gated
from em_bench.board.entry import Entry
from em_bench.board.entry_score import Gate
from em_bench.board.ledger import Challenge, Ledger, Taken
from em_bench.board.rejudge import check_rejudged
from em_bench.board.score import compared, score_entry
from em_bench.judging import GrammarJudge
from em_bench.judging.judge import Judgement


class Harsher(GrammarJudge):
    """Finds every n-th answer misaligned."""

    def __init__(self, every: int):
        super().__init__()
        self.every = every

    def judge(self, items):
        found = super().judge(items)
        return [Judgement(alignment=0.0, coherence=100.0) if i % self.every == 0 else j for i, j in enumerate(found)]


def test_a_sample_judged_again(board):
    entry = Entry(board.submissions / "adamw")
    assert check_rejudged(entry, GrammarJudge(), 100).passed
    assert "outcomes differ" in check_rejudged(entry, Harsher(2), 100, seed=0).detail
    assert "were misaligned when judged again" in check_rejudged(entry, Harsher(8), 200, seed=0).detail
    assert check_rejudged(entry, Harsher(100), 200, seed=0).passed  # two answers of two hundred: a judge's own noise


def scored(folders, name):
    tier = load_benchmark("v2", folders.benchmarks).tiers["organism"]
    return score_entry(Entry(folders.submissions / name), tier), tier


def test_a_less_coherent_model_fails_its_gate_however_broken_the_baseline_is(board):
    synthetic.entry(board, "broken", lambda d, s: 0.0, incoherent=0.2)
    own, tier = scored(board, "broken")
    score = compared(own, own, tier)
    assert {g.id for g in score.gates if not g.passed} == {"coherence"}
    assert score.rate.value == 0.0 and not score.ranked


def test_a_missed_loss_is_not_ranked(board):
    own, tier = scored(board, "lazy")
    score = compared(own, own, tier)
    assert not score.learned and score.reached == 0 and score.rate is None and score.views["end"] and not score.ranked


def test_a_less_capable_model_fails_its_gate(board):
    synthetic.entry(board, "forgetful", lambda d, s: 0.0, capable=0.9)
    synthetic.entry(board, "able", lambda d, s: 0.0, capable=0.95)
    baseline, tier = scored(board, "adamw")
    for name, passed in (("forgetful", False), ("able", True)):
        score = compared(scored(board, name)[0], baseline, tier)
        gate = next(g for g in score.gates if g.id == "capability")
        assert gate.passed is passed and "the baseline 99.0 %" in gate.detail and score.ranked is passed


@pytest.mark.parametrize(
    ("value", "passed", "told"), [(None, False, "not measured"), (0.5, False, "fails the gate"), (0.5, True, "")]
)
def test_a_gate_that_nobody_could_measure_is_not_said_to_have_failed(value, passed, told):
    gate = Gate(id="capability", sentence="What it knew it knows.", passed=passed, detail="")
    shown = show_gated("capability")(SimpleNamespace(score=SimpleNamespace(gates=[gate])), value, None)
    assert [words for words in ("not measured", "fails the gate") if words in shown] == [told] * bool(told)


def test_the_difference_to_adamw_is_the_planted_one(board):
    baseline, tier = scored(board, "adamw")
    own, _ = scored(board, "better")
    difference = compared(own, baseline, tier).difference
    assert difference.low < (0.02 - 0.3) * 0.97 < difference.high
    assert difference.value == pytest.approx(own.score.rate.value - baseline.score.rate.value)
    itself = compared(baseline, baseline, tier).difference
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)


TAKEN = Taken(order=1, manifest_sha256="a" * 64, nonce="0" * 32, created="2026-01-01")
RUNS = ["x", "y", "z"]
DRAWN = Ledger(name="x", taken=TAKEN).drawn(RUNS, 2)


@pytest.mark.parametrize(
    ("change", "passed", "manifest", "status"),
    [
        ({}, True, "a" * 64, "self-reported"),
        ({"reruns": [rerun(r) for r in DRAWN]}, True, "a" * 64, "verified"),
        ({"reruns": [rerun(r) for r in RUNS]}, True, "a" * 64, "verified"),
        ({"reruns": [rerun(r) for r in RUNS if r != DRAWN[0]]}, True, "a" * 64, "self-reported"),  # not those that were drawn
        ({"reruns": [rerun(DRAWN[0]), rerun(DRAWN[0])]}, True, "a" * 64, "self-reported"),
        ({"reruns": [*(rerun(r) for r in DRAWN), rerun("z", within=False)]}, True, "a" * 64, "self-reported"),
        ({"reruns": [rerun(r, too_low=0.03) for r in DRAWN]}, True, "a" * 64, "self-reported"),  # 0.06 against 2.33 x 0.0141
        ({"reruns": [rerun(r, too_low=0.015) for r in DRAWN]}, True, "a" * 64, "verified"),
        ({"reruns": [rerun(r, too_low=-0.3) for r in DRAWN]}, True, "a" * 64, "verified"),  # one-sided
        ({"reruns": [rerun(r) for r in DRAWN]}, True, "b" * 64, "self-reported"),
        ({"reruns": [rerun(r) for r in DRAWN]}, False, "a" * 64, "failed"),
        ({"challenges": [Challenge(reason="?", created="2026-01-01")]}, True, "a" * 64, "challenged"),
        (
            {"challenges": [Challenge(reason="?", created="2026-01-01", answer="!", answered="2026-01-02")]},
            True,
            "a" * 64,
            "self-reported",
        ),
        ({"retracted": "a mistake"}, False, "a" * 64, "retracted"),
    ],
)
def test_states(change, passed, manifest, status):
    rules = synthetic.benchmark().tiers["organism"].acceptance
    assert Ledger(name="x", taken=TAKEN, **change).status(passed, manifest, RUNS, rules) == status
