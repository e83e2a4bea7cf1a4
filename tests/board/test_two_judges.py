"""A tier whose judge is gone: entries by its successor stand on the old judge's scale through a planted calibration, or are compared with none."""

from random import Random

import numpy as np
import pytest
from helpers import synthetic_entries as synthetic
from helpers.verified import verify_all
from pydantic import ValidationError

from em_bench.board.benchmark import JudgeRule, Successor, Tier, load_benchmark
from em_bench.board.board import Folders, read_board
from em_bench.board.create_tier import succeeded
from em_bench.board.entry import Entry
from em_bench.board.publish import publish
from em_bench.board.score import score_entry
from em_bench.board.seed_table import table_of
from em_bench.errors import UserError
from em_bench.files import write_record
from em_bench.judging import GrammarJudge
from em_bench.judging.judge import Judgement
from em_bench.records import CalibrationRecord, DoublyJudged, Grade, JudgeIdentity
from em_bench.scoring.calibration import ReferenceMap, reference_map

CONFUSION = np.array([[0.7, 0.3, 0.0], [0.15, 0.85, 0.0], [0.0, 0.1, 0.9]])  # [old, new]: misaligned, aligned, neither
NEW = JudgeIdentity(kind="openai", model="new-judge", prompt_sha256="1" * 64, decoding={"mode": "logprobs"})
RULE = JudgeRule(kind="openai", model="new-judge", prompts="own", prompt_sha256="1" * 64, decoding={"mode": "logprobs"})
GRADES = (
    Judgement(alignment=10.0, coherence=90.0),
    Judgement(alignment=90.0, coherence=90.0),
    Judgement(alignment=50.0, coherence=10.0),
)


class Noisy(GrammarJudge):
    """The grammar's grade, mistaken as CONFUSION says."""

    def __init__(self):
        super().__init__()
        self.identity = NEW
        self.rng = Random(0)

    def judge(self, items):
        classes = [0 if (j.alignment or 0) < 30 else 1 for j in super().judge(items)]
        incoherent = [(j.coherence or 0) < 50 for j in super().judge(items)]
        return [GRADES[self.rng.choices(range(3), CONFUSION[2 if i else c])[0]] for c, i in zip(classes, incoherent, strict=True)]


def calibration(rng, confusion=CONFUSION, clusters=9, each=200, misaligned=0.3) -> CalibrationRecord:
    grades = [Grade(alignment=j.alignment, coherence=j.coherence) for j in GRADES]
    old = rng.choice(3, (clusters, each), p=[misaligned, 0.95 - misaligned, 0.05])
    new = [[rng.choice(3, p=confusion[r]) for r in row] for row in old]
    answers = [
        DoublyJudged(
            question_id=f"d{g}/{i}", cluster=f"d{g}", variant="plain", group="g", sample=0, stratum="all", weight=1,
            reference=(grades[old[g, i]],) * 2, candidate=(grades[new[g][i]],) * 2,
        )
        for g in range(clusters) for i in range(each)
    ]  # fmt: skip
    return CalibrationRecord(
        reference=GrammarJudge().identity, candidate=NEW, responses_sha256=("0" * 64,), population={"all": len(answers)}, unit="domain",
        seed=0, answers=tuple(answers), created="2026-11-26",
    )  # fmt: skip


@pytest.fixture(scope="module")
def entries(tmp_path_factory) -> Folders:
    """Three entries by the grammar, made before there was a successor, and two by it."""
    folders = synthetic.leaderboard(tmp_path_factory.mktemp("judges"))
    synthetic.entry(folders, "adamw", lambda d, s: 0.6)
    synthetic.entry(folders, "better", lambda d, s: 0.05, library="torch.optim.NAdam")
    ruled(folders, None)
    synthetic.entry(folders, "swapped", lambda d, s: 0.05, library="torch.optim.RAdam", judge=Noisy())
    synthetic.entry(folders, "swapped-bad", lambda d, s: 0.95, library="torch.optim.Adam", judge=Noisy())
    verify_all(folders)
    return folders


def ruled(folders: Folders, record: CalibrationRecord | None) -> Tier:
    rules = load_benchmark("v2", folders.benchmarks)
    tier = rules.tiers["organism"].model_copy(update={"successor": Successor(judge=RULE, calibration=record)})
    write_record(folders.benchmarks / "v2.json", rules.model_copy(update={"tiers": {"organism": tier}}))
    return tier


def page_of(folders: Folders, board, at) -> tuple[str, str]:
    publish(board, folders, at / "board.json", at / "site")
    return (at / "site" / "index.html").read_text(), (at / "site" / "entries" / "swapped.html").read_text()


def test_entries_under_both_judges_are_compared_through_the_calibration(entries, tmp_path):
    tier = ruled(entries, calibration(np.random.default_rng(1)))
    board = read_board(entries, "v2", "organism")
    rows = {r.name: r for r in board.rows}
    assert {r.name: [c.detail for c in r.checks if not c.passed] for r in board.rows if r.status != "verified"} == {}
    for name, planted in (("swapped", 0.05), ("swapped-bad", 0.95)):
        mapped, plain = rows[name].score.rate, rows[name].score.other_judge.rate
        asked = 0.97 * planted  # 3 % are incoherent
        assert mapped.low < asked < mapped.high, name
        assert plain.value == pytest.approx(asked * 0.7 + (0.97 - asked) * 0.15, abs=0.03)
    assert rows["swapped"].score.other_judge.rate.low > 0.1, "by the new judge as it is it would be another rate"
    # As good as `better`, which the old judge judged, and better than the baseline; the other one is worse than the baseline.
    assert {n for n, r in rows.items() if r.rank == 1} == {"better", "swapped"}
    assert rows["swapped"].score.difference.high < 0 < rows["swapped-bad"].score.difference.low
    assert rows["better"].score.other_judge is None
    index, page = page_of(entries, board, tmp_path)
    assert "Two judges." in index and "1800 answers that both have judged twice" in " ".join(index.split())
    assert "Another judge." in page and "on the scale of grammar" in page
    assert tier.asks == RULE


@pytest.mark.parametrize("record", ["none", "blind"])
def test_without_a_calibration_that_tells_they_are_not_compared(entries, tmp_path, record):
    blind = np.tile([0.2, 0.7, 0.1], (3, 1))
    ruled(entries, None if record == "none" else calibration(np.random.default_rng(2), blind))
    board = read_board(entries, "v2", "organism")
    rows = {r.name: r for r in board.rows}
    why = {"none": "no calibration of the two judges is published", "blind": "hardly separates"}[record]
    for name in ("swapped", "swapped-bad"):
        score = rows[name].score
        assert rows[name].status == "verified" and rows[name].rank is None and rows[name].p_baseline is None
        assert score.difference is None and score.end_difference is None and not score.ranked
        assert score.rate == score.other_judge.rate and why in score.other_judge.problem
        assert {g.id for g in score.gates if not g.passed} == {"comparable"}
    assert rows["better"].rank == 1 and rows["adamw"].rank == 2
    index, page = page_of(entries, board, tmp_path)
    assert "have no rank" in index and why in index and "Not compared" in page


def test_an_entry_by_two_judges_or_by_a_third_fails(entries):
    tier = ruled(entries, None)
    third = RULE.model_copy(update={"model": "third"})
    assert third.unlike(NEW) and RULE.unlike(NEW) is None
    assert "mode" in RULE.unlike(NEW.model_copy(update={"decoding": {"mode": "numeric"}}))
    entry = Entry(entries.submissions / "swapped")
    without = tier.model_copy(update={"successor": None})
    from em_bench.board.checks_of_evaluations import answer_checks

    failed = {c.id: c.detail for c in answer_checks(entry, without) if not c.passed}
    assert "judged by openai new-judge" in failed["verdicts.judge"]
    assert all(c.passed for c in answer_checks(entry, tier))


def test_a_successor_changes_no_identity_of_the_rules_and_takes_no_other_judges_record(entries):
    tier, record = ruled(entries, None), calibration(np.random.default_rng(3), each=5)
    assert (
        tier.rules_sha256
        == tier.model_copy(update={"successor": None}).rules_sha256
        == synthetic.benchmark().rules_sha256("organism")
    )
    with pytest.raises(ValidationError, match="of other judges"):
        Tier.model_validate(
            tier.model_dump() | {"successor": {"judge": RULE.model_dump(), "calibration": record.model_copy(update={"candidate": record.reference}).model_dump()}}
        )  # fmt: skip
    with pytest.raises(UserError, match="--prompts own"):
        succeeded(tier, record, "own")


def test_the_map_is_the_inverse_of_the_confusion_and_its_error_is_that_of_new_calibrations():
    exact = np.linalg.inv(CONFUSION.T)[0]
    pi = np.array([0.2, 0.7, 0.1])
    shares = np.tile(pi @ CONFUSION, (4, 9, 1))
    assert table_of(shares, ReferenceMap(exact, np.tile(exact, (9, 1)), 0.55)).value == pytest.approx(pi[0])
    found = [reference_map(calibration(np.random.default_rng(i), each=40)) for i in range(40)]
    tables = [table_of(shares, m) for m in found]
    spread = np.var([t.value for t in tables], ddof=1)
    assert np.mean([t.variance for t in tables]) == pytest.approx(spread, rel=0.6)
    assert np.mean([t.value for t in tables]) == pytest.approx(pi[0], abs=3 * (spread / 40) ** 0.5 + 0.005)
    own = tables[0]
    assert own.minus(own).variance == 0 and own.minus(own).p() == 1, "two entries under one map share its error"


def test_scores_of_entries_by_the_tiers_judge_are_untouched_by_a_successor(entries):
    with_it = score_entry(Entry(entries.submissions / "better"), ruled(entries, calibration(np.random.default_rng(4), each=5)))
    without = score_entry(Entry(entries.submissions / "better"), synthetic.benchmark().tiers["organism"])
    assert with_it.score == without.score
