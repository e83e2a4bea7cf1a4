"""The training loss of a run at a step: its log's losses of single batches, smoothed over a window."""

from collections.abc import Sequence
from math import ceil, fsum
from typing import NamedTuple

from em_bench.records import StepRecord

WINDOW = 0.1  # share of the steps so far; provenance: C, the paper's smoothing is not known to us


class TrainLoss(NamedTuple):
    """Nats per answer token over the last `window` steps."""

    loss: float
    window: int


def smoothed(log: Sequence[StepRecord], step: int) -> TrainLoss | None:
    """Mean training loss over the last tenth of the steps up to `step`, at least one, weighted by their answer tokens.

    `log` is train.jsonl from step 0 on. A step's loss is that of its batch before its update. At step 0, which has none, the
    first batch's, which the untouched base meets. None where the log lacks losses.
    """
    at = max(step, 1)
    window = max(1, ceil(WINDOW * at))
    seen = {r.step: r.tokens for r in log}
    taken = [(r, r.loss) for r in log if at - window < r.step <= at and r.loss is not None]
    weights = [r.tokens - seen.get(r.step - 1, 0) for r, _ in taken]
    if len(taken) < window or not sum(weights) > 0:
        return None
    return TrainLoss(fsum(w * loss for w, (_, loss) in zip(weights, taken, strict=True)) / sum(weights), window)
