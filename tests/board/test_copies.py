"""Copies of another entry are told from optimisers that are nearly equal."""

import pytest
from helpers import synthetic_entries as synthetic
from helpers.spoilt_entries import failed, tree
from helpers.synthetic_entries import relink, reseal

from em_bench.board.copies import Fingerprint, check_copies
from em_bench.board.verify import verify_entry


def test_responses_copied_from_another_entry(board):
    synthetic.entry(board, "thief", library="torch.optim.Adam")
    for kind in ("end", "step3", "step4", "step5"):
        for theirs, ours in zip(
            *(sorted((tree(board, n) / "evaluations").glob(f"*.{kind}")) for n in ("adamw", "thief")), strict=False
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
        (20, 100, 1e-5, True),  # Adam and AdamW: as near as runs are that differ by a weight decay of 0.01
        (15, 97, 1e-5, True),
        (20, 100, 0.01, False),
        (15, 97, 0.01, False),
        (0, 85, 0.01, False),  # a copy in which some answers were changed
        (0, 75, 0.01, True),
        (0, 0, 0.0, True),
    ],
)
def test_near_equal_optimisers_are_told_from_copies(shared, blocks, apart, passed):
    def prints(own: str, day: int, loss: float) -> Fingerprint:
        return Fingerprint(
            {f"{'a' if i < shared else own}{i}": loss for i in range(20)},
            {f"{'a' if i < blocks else own}{i}": loss for i in range(100)},
            {f"{own}{i}": "" for i in range(6)},
            day,
        )

    checks = check_copies([("first", prints("x", 1, 0.57)), ("second", prints("y", 2, 0.57 + apart))])
    assert checks["first"].passed and checks["second"].passed is passed
    assert ("first" in checks["second"].detail) is (blocks > 80)


def test_blocks_that_several_runs_of_the_other_have_tell_nothing():
    """Adam with and without the spectral term: both answer most questions as the base does, at losses 0.02 nats apart."""
    base = {f"b{i}": 0.57 for i in range(80)}
    first = Fingerprint({"x": 0.57}, base | {f"x{i}": 0.57 for i in range(40)}, {"x": ""}, 1, common=frozenset(base))
    honest = dict.fromkeys(base, 0.59) | {f"y{i}": 0.59 for i in range(40)}
    assert check_copies([("first", first), ("second", Fingerprint({"y": 0.59}, honest, {"y": ""}, 2))])["second"].passed
    copied = honest | {f"x{i}": 0.59 for i in range(35)}
    check = check_copies([("first", first), ("second", Fingerprint({"y": 0.59}, copied, {"y": ""}, 2))])["second"]
    assert not check.passed and "35 of 40 telling blocks of answers are those of first, at other losses" in check.detail


def test_who_was_taken_first_has_the_answers():
    """Whatever date an entry claims: the ledger's order decides, and what is in no ledger comes last."""
    one = {f"a{i}": 0.57 for i in range(20)}
    for thief in (7, None):
        checks = check_copies([("a-thief", Fingerprint(one, one, {}, thief)), ("author", Fingerprint(one, one, {}, 3))])
        assert checks["author"].passed and not checks["a-thief"].passed


def test_adapters_or_logs_of_another_are_found():
    def prints(own: str, runs: dict[str, str], order: int) -> Fingerprint:
        return Fingerprint({own: 0.5}, {own: 0.5}, runs, order)

    mine = {f"h{i}": "" for i in range(12)}  # an adapter and a log of six runs
    taken = {**dict(list(mine.items())[:4]), **{f"x{i}": "" for i in range(8)}}
    checks = check_copies([("author", prints("a", mine, 1)), ("thief", prints("b", taken, 2))])
    assert "adapters and logs are those of author" in checks["thief"].detail and not checks["thief"].passed
