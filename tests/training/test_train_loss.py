"""The smoothed training loss: a token-weighted mean over the last tenth of the steps, and at step 0 the first batch's."""

import pytest
from helpers.committed import committed

from em_bench.records import CellResult, StepRecord
from em_bench.training.smoothed_train_loss import smoothed


def log(losses, tokens):
    """Steps 0, 1, ... with these losses, of batches of so many answer tokens."""
    seen = [sum(tokens[:i]) for i in range(len(tokens) + 1)]
    return [StepRecord(step=i, loss=v, tokens=seen[i]) for i, v in enumerate([None, *losses])]


def test_the_last_tenth_weighted_by_tokens():
    losses, tokens = [5.0] * 38 + [1.0, 2.0], [10] * 38 + [30, 10]
    found = smoothed(log(losses, tokens), 40)
    assert found.window == 4 and found.loss == pytest.approx((5 * 10 + 5 * 10 + 1 * 30 + 2 * 10) / 60)
    assert smoothed(log(losses, tokens), 38) == (5.0, 4)
    assert smoothed(log(losses, tokens), 1) == smoothed(log(losses, tokens), 0) == (5.0, 1)


def test_a_log_without_the_losses_has_none():
    whole = log([3.0] * 20, [10] * 20)
    assert smoothed(whole[:19], 20) is None and smoothed([], 0) is None
    assert smoothed([r.model_copy(update={"tokens": 0}) for r in whole], 20) is None


def test_results_of_before_are_read_and_written_as_they_were():
    """The fields are optional, and absent where unknown, so that no hash of an older file changes."""
    fields = {"train_loss", "train_window", "studies"}
    before = {k: v for k, v in committed("tiny").cells[-1].model_dump(mode="json").items() if k not in fields}
    cell = CellResult.model_validate(before)
    assert cell.train_loss is None and cell.studies == [] and cell.model_dump(mode="json") == before
