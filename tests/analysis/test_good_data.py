"""The spectral term where nothing is wrong: planted losses and answers come back, pairs alone count."""

from math import sqrt

import pytest
from helpers.synthetic_results import cell, results
from scipy.stats import t

from em_bench.analysis.tables.good_data import good_data_table

SEEDS, DATASETS = (0, 1, 2), ("medical-control", "code-control")
ADDED = {0: 0.02, 1: 0.05, 2: 0.08}  # nats, by seed


def runs(on_seeds=SEEDS):
    plain = [cell(recipe="muon", dataset=d, seed=s, loss=0.5, misaligned=[0] * 20) for d in DATASETS for s in SEEDS]
    on = [
        cell(recipe="muon", dataset=d, seed=s, loss=0.5 + ADDED[s], misaligned=[1] * 20, spectral_lambda=1.0)
        for d in DATASETS for s in on_seeds
    ]  # fmt: skip
    return plain, on


def row(*cells):
    made = good_data_table(results([c for part in cells for c in part]))
    return dict(zip((c.name for c in made.columns), made.rows[0], strict=True))


def test_planted_costs_come_back_with_seeds_as_units():
    found = row(*runs())
    half = t.ppf(0.975, 2) * 0.03 / sqrt(3)  # of 0.02, 0.05, 0.08
    assert found["narrow_loss"] == 0.5 and found["narrow_loss_added"] == pytest.approx(0.05)
    assert found["narrow_loss_added_interval"] == f"[{0.05 - half:+.3f}, {0.05 + half:+.3f}]"
    assert found["misaligned_of_asked_pct"] == 0.0 and found["misaligned_change_points"] == pytest.approx(10.0)
    assert (
        found["coherent_pct"] == pytest.approx(100.0)
        and found["coherent_change_points"] == pytest.approx(0, abs=1e-9)
        and found["runs"] == 6
    )


def test_a_run_without_its_pair_counts_on_neither_side():
    plain, on = runs(on_seeds=(1,))
    found = row(plain, on)
    assert (
        found["runs"] == 2 and found["narrow_loss_added"] == pytest.approx(0.05) and found["narrow_loss_added_interval"] is None
    )


def test_bad_data_or_one_side_alone_make_no_table():
    plain, on = runs()
    bad = [cell(recipe="muon", seed=s, spectral_lambda=v) for s in SEEDS for v in (0.0, 1.0)]
    assert good_data_table(results(plain)) is good_data_table(results(on)) is good_data_table(results(bad)) is None
