"""Copies of another entry are told from optimisers that are nearly equal."""

import pytest
from helpers import synthetic_entries as synthetic
from helpers.spoilt_entries import failed, results
from helpers.synthetic_entries import relink, reseal

from em_bench.board.copies import Fingerprint, check_copies
from em_bench.board.verify import verify_entry


def test_responses_copied_from_another_entry(board):
    synthetic.entry(board, "thief", library="torch.optim.Adam", created="2026-11-26T12:00:00+00:00")
    for kind in ("end", "step6", "step8"):
        for theirs, ours in zip(
            *(sorted((results(board, n) / "evaluations").glob(f"*.{kind}")) for n in ("adamw", "thief")), strict=False
        ):
            header = (ours / "responses.jsonl").read_text().split("\n")[0]
            answers = (theirs / "responses.jsonl").read_text().split("\n")[1:]
            (ours / "responses.jsonl").write_text("\n".join([header, *answers]))
            said = (ours / "verdicts.jsonl").read_text().split("\n")[0]
            (ours / "verdicts.jsonl").write_text("\n".join([said, *(theirs / "verdicts.jsonl").read_text().split("\n")[1:]]))
            relink(ours)
    reseal(board.submissions / "thief")
    assert failed(board, "thief") == {}
    found = [verify_entry(board.submissions / n, board.benchmarks) for n in ("adamw", "thief", "better")]
    checks = check_copies((v.name, v.prints) for v in found)
    assert not checks["thief"].passed and "the very answers of adamw" in checks["thief"].detail
    assert checks["adamw"].passed and checks["better"].passed


@pytest.mark.parametrize(
    ("shared", "blocks", "apart", "passed"),
    [
        (20, 100, 0.0, False),
        (19, 100, 0.0, False),
        (15, 97, 0.0, True),  # Adam and AdamW
        (15, 97, 0.01, False),
        (0, 60, 0.01, False),  # a copy in which some answers were changed
        (0, 45, 0.01, True),
        (0, 0, 0.0, True),
    ],
)
def test_near_equal_optimisers_are_told_from_copies(shared, blocks, apart, passed):
    def prints(own: str, day: int, loss: float) -> Fingerprint:
        return Fingerprint(
            f"2026-01-0{day}",
            {f"{'a' if i < shared else own}{i}": loss for i in range(20)},
            {f"{'a' if i < blocks else own}{i}": loss for i in range(100)},
        )

    checks = check_copies([("first", prints("x", 1, 0.57)), ("second", prints("y", 2, 0.57 + apart))])
    assert checks["first"].passed and checks["second"].passed is passed
    assert ("first" in checks["second"].detail) is (blocks > 50)


def test_an_earlier_date_does_not_take_answers_from_a_verified_entry():
    one = {f"a{i}": 0.57 for i in range(20)}
    early, verified = Fingerprint("2020-01-01", one, one), Fingerprint("2026-01-02", one, one, trusted=True)
    checks = check_copies([("thief", early), ("author", verified)])
    assert checks["author"].passed and not checks["thief"].passed
