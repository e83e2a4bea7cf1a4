"""Batches are a function of (seed, step); grouping by length and padding change no row."""

import functools
import operator

import pytest
import torch

from em_bench.training.batches import batch_indices, collate, pack, shares, tokens_at_once
from em_bench.training.tokens import Encoded


def rows(lengths) -> list[Encoded]:
    return [Encoded(list(range(1, n + 1)), [False] * (n // 2) + [True] * (n - n // 2)) for n in lengths]


@pytest.mark.parametrize("size", [1, 7, 10, 23])
def test_epochs_are_permutations_laid_end_to_end(size):
    drawn = [i for step in range(30 // size + 1) for i in batch_indices(10, size, seed=3, step=step)]
    for epoch in range(len(drawn) // 10):
        assert sorted(drawn[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert drawn[:10] != drawn[10:20], "each epoch has its own order"


def test_a_function_of_seed_and_step_alone():
    in_order = [batch_indices(50, 8, 1, step) for step in range(20)]
    backwards = [batch_indices(50, 8, 1, step) for step in reversed(range(20))][::-1]
    assert in_order == backwards
    assert in_order != [batch_indices(50, 8, 2, step) for step in range(20)]


def test_the_sequence_does_not_depend_on_the_batch_size():
    assert functools.reduce(operator.iadd, (batch_indices(50, 4, 0, s) for s in range(6)), []) == functools.reduce(
        operator.iadd, (batch_indices(50, 8, 0, s) for s in range(3)), []
    )


def padded(part: list[Encoded]) -> int:
    return len(part) * max(len(r.input_ids) for r in part)


@pytest.mark.parametrize("tokens", [None, 1, 12, 20, 1000])
def test_passes_hold_every_row_once_by_length(tokens):
    """Lengths 3 3 4 5 6 7 9 12, split by hand: with 12 tokens 3 3 4, 5 6, 7, 9, 12."""
    everything = rows([9, 3, 7, 3, 12, 5, 6, 4])
    parts = shares(everything, tokens)
    lengths = [len(r.input_ids) for p in parts for r in p]
    assert lengths == sorted(len(r.input_ids) for r in everything)
    assert all(padded(p) <= (tokens or 96) or len(p) == 1 for p in parts)
    by_hand = {None: [8], 1: [1] * 8, 12: [3, 2, 1, 1, 1], 20: [4, 2, 1, 1], 1000: [8]}[tokens]
    assert [len(p) for p in parts] == by_hand
    assert tokens_at_once(everything, tokens)[0] == max(map(padded, parts))


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("tokens", [None, 1, 8, 40])
@pytest.mark.parametrize("n", [1, 7, 8])
def test_processes_share_the_rows_and_pass_equally_often(n, tokens, processes):
    everything = rows(range(3, 3 + n))
    parts = [shares(everything, tokens, rank, processes) for rank in range(processes)]
    assert len({len(p) for p in parts}) == 1
    assert all(part and (len(part) == 1 or padded(part) <= (tokens or 1000)) for p in parts for part in p)
    assert tokens_at_once(everything, tokens, processes)[0] >= max(padded(part) for p in parts for part in p)
    learnt = [len(r.input_ids) for p in parts for part in p for r in part if any(r.answer_mask)]
    assert sorted(learnt) == list(range(3, 3 + n)), "a repeated row has nothing under loss"


def test_collate_pads_on_the_right():
    batch = collate(rows([2, 4]), pad_id=0)
    assert batch["input_ids"].tolist() == [[1, 2, 0, 0], [1, 2, 3, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch["answer_mask"].tolist() == [[False, True, False, False], [False, False, True, True]]


def test_nothing_predicts_the_first_token():
    batch = collate([Encoded([5, 6], [True, True])], pad_id=0)
    assert batch["answer_mask"].tolist() == [[False, True]]
    assert batch["input_ids"].dtype == torch.int64 and batch["answer_mask"].dtype == torch.bool


def test_packing_puts_rows_end_to_end():
    batch = pack([Encoded([1, 2], [True, True]), Encoded([3, 4, 5], [True, False, True])], pad_id=0)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5]] and batch["position_ids"].tolist() == [[0, 1, 0, 1, 2]]
    assert batch["answer_mask"].tolist() == [[False, True, False, False, True]], "a row's first token is predicted by nothing"


def test_stages_come_one_after_the_other_and_each_row_once_an_epoch():
    drawn = [i for step in range(6) for i in batch_indices(10, 5, 1, step, stages=2)]
    for epoch in range(3):
        first, second = drawn[10 * epoch : 10 * epoch + 5], drawn[10 * epoch + 5 : 10 * epoch + 10]
        assert (sorted(first), sorted(second)) == (list(range(5)), list(range(5, 10)))
    assert drawn[:5] != drawn[10:15] or drawn[5:10] != drawn[15:20], "each epoch has its own order"
