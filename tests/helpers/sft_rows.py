"""Rows of our trainer as TRL's SFTTrainer takes them, in our trainer's order."""

from pathlib import Path

from transformers import AutoTokenizer

from em_bench.data import rows
from em_bench.records import RunSpec
from em_bench.training import encode_rows
from em_bench.training.batches import batch_indices


def sft_columns(base: Path, spec: RunSpec) -> list[dict]:
    """The rows of all steps of a run on `medical`, with labels at the answers alone."""
    encoded, _ = encode_rows(AutoTokenizer.from_pretrained(base), rows("medical")[0], spec.max_length)
    order = [encoded[i] for step in range(spec.steps) for i in batch_indices(len(encoded), spec.batch_size, spec.seed, step)]
    return [
        {"input_ids": e.input_ids, "labels": [t if m else -100 for t, m in zip(e.input_ids, e.answer_mask, strict=True)]}
        for e in order
    ]
