"""Which rows go into which optimiser step: a function of (seed, step) alone, so that resuming needs no state."""

from collections.abc import Sequence

import numpy as np
import torch

from em_bench.training.tokens import Encoded


def batch_indices(n_rows: int, batch_size: int, seed: int, step: int, stages: int = 1) -> list[int]:
    """Row numbers of optimiser step `step` (0-based): epochs are seeded permutations laid end to end.

    stages: an epoch is so many permutations, each of an equal part of the rows, in the order of the parts.
    """
    out = []
    for k in range(step * batch_size, (step + 1) * batch_size):
        epoch, i = divmod(k, n_rows)
        out.append(int(_permutation(n_rows, seed, epoch, stages)[i]))
    return out


_cache: dict[tuple[int, int, int, int], np.ndarray] = {}


def _permutation(n: int, seed: int, epoch: int, stages: int) -> np.ndarray:
    key = (n, seed, epoch, stages)
    if key not in _cache:
        if len(_cache) > 8:
            _cache.clear()
        rng = np.random.default_rng([seed, epoch])
        _cache[key] = np.concatenate([rng.permutation(part) for part in np.array_split(np.arange(n), stages)])
    return _cache[key]


def shares(rows: Sequence[Encoded], max_tokens: int | None, rank: int = 0, processes: int = 1) -> list[list[Encoded]]:
    """The passes of one process, each of at most `max_tokens` tokens with padding, or one row; rows of similar length together.

    The loss of a step is a sum over its tokens divided by their number, so the split changes speed, not the result.
    All processes get equally many, and none is empty: a sharded base makes them pass through every layer together.
    Where rows do not suffice, one is repeated with nothing under loss.
    """
    return [
        group[rank::processes] or [group[0]._replace(answer_mask=[False] * len(group[0].input_ids))]
        for group in _passes(rows, max_tokens, processes)
    ]


def tokens_at_once(rows: Sequence[Encoded], max_tokens: int | None, processes: int = 1) -> tuple[int, int]:
    """(tokens with padding, rows) of the largest pass of a process that `shares` makes."""
    passes = [(-(-len(group) // processes), len(group[-1].input_ids)) for group in _passes(rows, max_tokens, processes)]
    return max((n * longest, n) for n, longest in passes)


def _passes(rows: Sequence[Encoded], max_tokens: int | None, processes: int) -> list[list[Encoded]]:
    """Of all processes together, by length: a pass's last row is its longest."""
    groups: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda e: len(e.input_ids)):
        share = -(-(len(groups[-1]) + 1) // processes) if groups else 0
        if groups and (max_tokens is None or share == 1 or share * len(row.input_ids) <= max_tokens):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def collate(rows: Sequence[Encoded], pad_id: int, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """Right-padded `input_ids`, `attention_mask` and `answer_mask`, each [rows, longest]."""
    longest = max(len(e.input_ids) for e in rows)
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    attention = np.zeros_like(ids)
    answer = np.zeros(ids.shape, dtype=bool)
    for i, e in enumerate(rows):
        n = len(e.input_ids)
        ids[i, :n], attention[i, :n], answer[i, :n] = e.input_ids, 1, e.answer_mask
    answer[:, 0] = False  # nothing predicts the first token
    return _tensors({"input_ids": ids, "attention_mask": attention, "answer_mask": answer}, device)


def pack(rows: Sequence[Encoded], pad_id: int, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """The rows end to end: `input_ids`, `position_ids` (from 0 in each row) and `answer_mask`, each [1, tokens].

    transformers reads the block-diagonal attention from the positions. No padding; `pad_id` is for `collate`'s place.
    """
    ids = np.concatenate([np.asarray(e.input_ids, dtype=np.int64) for e in rows])[None]
    positions = np.concatenate([np.arange(len(e.input_ids)) for e in rows])[None]
    answer = np.concatenate([np.asarray(e.answer_mask, dtype=bool) for e in rows])[None]
    return _tensors({"input_ids": ids, "position_ids": positions, "answer_mask": answer & (positions > 0)}, device)


def _tensors(arrays: dict[str, np.ndarray], device: torch.device | str) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v).to(device) for k, v in arrays.items()}
