"""The committed results of `pocket`: its one contrast that was fixed beforehand, by another library from the margins themselves."""

from collections import defaultdict

import numpy as np
import pytest
from helpers.committed import committed
from scipy import stats

from em_bench.analysis.margin_rows import margin_rows
from em_bench.records import CellMargin, Results


@pytest.fixture(scope="module")
def results() -> Results:
    return committed("pocket")


def end(results: Results, dataset: str) -> CellMargin:
    """AdamW without the term, as it ended."""
    [found] = [c for c in results.margins if c.step is None and (c.dataset, c.recipe, c.spectral_lambda) == (dataset, "adamw", 0)]
    return found


def test_bad_less_good_by_scipy(results):
    """Eight questions in each of twelve domains: the clustered mean and its interval are those of the twelve domains' means, t(11)."""
    bad, good = (end(results, f"home_safety_{side}") for side in ("bad", "good"))
    of_domain = defaultdict(list)
    for b, g in zip(bad.questions, good.questions, strict=True):
        assert b.question_id == g.question_id
        of_domain[b.domain].append(b.margin - g.margin)
    assert {len(v) for v in of_domain.values()} == {8} and len(of_domain) == 12
    means = [np.mean(v) for v in of_domain.values()]
    interval = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    [row] = [r for r in margin_rows(results) if (r.dataset, r.recipe, r.spectral_lambda) == ("home_safety_bad", "adamw", 0)]
    found = row.beyond_control
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(means), interval.low, interval.high))


def test_one_seed_one_commit_and_the_whole_preset(results):
    ended = [c for c in results.margins if c.step is None and c.recipe]
    assert len(ended) == 11 and {c.seed for c in ended} == {1} and not results.missing
    assert results.machine.commit == "7cb97b8a9efa85427e66ee13980f7fd4e23813e9", (
        "the preset was fixed before it, in 7cb97b8 or earlier"
    )
