"""Samples judged again, gates, the ledger's states."""

import pytest
from helpers import synthetic_entries as synthetic

from em_bench.board.benchmark import load_benchmark
from em_bench.board.entry import Entry
from em_bench.board.ledger import Challenge, Ledger, RepeatedNumber, Rerun
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
    rules = load_benchmark("v1", folders.benchmarks)
    return score_entry(Entry(folders.submissions / name), rules.tiers["organism"], rules), rules.tiers["organism"]


def test_a_less_coherent_model_fails_its_gate(board):
    synthetic.entry(board, "broken", lambda d, s: 0.0, incoherent=0.6)
    baseline, tier = scored(board, "adamw")
    own, _ = scored(board, "broken")
    score = compared(own, baseline, tier)
    assert {g.id: g.passed for g in score.gates} == {"learned": True, "coherence": False, "judged": True, "capability": True}
    assert score.matched.value == 0.0 and not score.ranked


def test_a_missed_target_is_not_ranked(board):
    own, tier = scored(board, "lazy")
    score = compared(own, own, tier)
    assert not score.learned and score.reached == 0 and score.matched is None and score.final is not None and not score.ranked


def test_a_less_capable_model_fails_its_gate(board):
    synthetic.entry(board, "forgetful", lambda d, s: 0.0, capable=0.9)
    synthetic.entry(board, "able", lambda d, s: 0.0, capable=0.95)
    baseline, tier = scored(board, "adamw")
    for name, passed in (("forgetful", False), ("able", True)):
        score = compared(scored(board, name)[0], baseline, tier)
        gate = next(g for g in score.gates if g.id == "capability")
        assert gate.passed is passed and "AdamW 99.0 %" in gate.detail and score.ranked is passed


def test_capability_is_that_of_the_matched_checkpoint(board):
    folder = board.submissions / "adamw" / "results"
    for path in folder.glob("evaluations/*.end/score.json"):
        path.write_text(path.read_text().replace("0.99", "0.25"))
    assert scored(board, "adamw")[0].score.capability == pytest.approx(0.99)
    for path in folder.glob("evaluations/*.step*/score.json"):
        path.write_text(path.read_text().replace("0.99", "0.25"))
    assert scored(board, "adamw")[0].score.capability == pytest.approx(0.25)


def test_an_unmeasured_capability_fails_where_the_tier_asks_for_it(board):
    own, tier = scored(board, "adamw")
    none = own._replace(score=own.score.model_copy(update={"capability": None}))
    gate = next(g for g in compared(none, own, tier).gates if g.id == "capability")
    assert not gate.passed and gate.detail == "not measured"


def test_the_difference_to_adamw_is_the_planted_one(board):
    baseline, tier = scored(board, "adamw")
    own, _ = scored(board, "better")
    difference = compared(own, baseline, tier).difference
    assert difference.low < 0.02 - 0.3 < difference.high
    assert difference.value == pytest.approx(own.score.matched.value - baseline.score.matched.value)
    itself = compared(baseline, baseline, tier).difference
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)


def rerun(run_id: str, within: bool = True) -> Rerun:
    return Rerun(
        run_id=run_id,
        numbers=[
            RepeatedNumber(what="loss", at="end", recorded=0.5, found=0.5, within=True),
            RepeatedNumber(what="misaligned", at="matched", recorded=0.2, found=0.2, within=within),
        ],
        machine=synthetic.MACHINE,
        created="2026-01-01",
    )


@pytest.mark.parametrize(
    ("change", "passed", "manifest", "status"),
    [
        ({}, True, "a" * 64, "self-reported"),
        ({"reruns": [rerun("x"), rerun("y")]}, True, "a" * 64, "verified"),
        ({"reruns": [rerun("x"), rerun("x")]}, True, "a" * 64, "self-reported"),
        ({"reruns": [rerun("x"), rerun("y"), rerun("z", False)]}, True, "a" * 64, "self-reported"),
        ({"reruns": [rerun("x"), rerun("y")]}, True, "b" * 64, "self-reported"),
        ({"reruns": [rerun("x"), rerun("y")]}, False, "a" * 64, "failed"),
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
    assert Ledger(name="x", manifest_sha256="a" * 64, **change).status(passed, manifest, needed=2) == status
