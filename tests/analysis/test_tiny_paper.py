"""The committed results of tiny-paper: they cover the design, exercise every analysis, and give the committed tables."""

import re
from pathlib import Path
from typing import get_args

import pytest

from em_bench import assets
from em_bench.analysis.report import all_tables, quotable
from em_bench.analysis.runs import load_runs
from em_bench.files import digest
from em_bench.records import Study
from em_bench.sweep.preset import load_preset

whole = pytest.mark.slow  # a minute and a half: 160 MB of results, and every analysis of them
STUDIES = get_args(Study)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


@pytest.fixture(scope="module")
def folder():
    return assets.path("baselines", "results", "tiny-paper")


@pytest.fixture(scope="module")
def runs(folder):
    found = load_runs([folder])
    if found.sources[0].preset_sha256 != digest(load_preset("tiny-paper")):
        pytest.skip(
            "the committed results are of an earlier tiny-paper: run it, and commit report --pack's results.json.gz and tables"
        )
    return found


@pytest.fixture(scope="module")
def tables(runs):
    return all_tables(runs)


@whole
def test_the_design_is_the_presets_and_is_the_issues(runs):
    preset, cells = load_preset("tiny-paper"), runs.cells
    assert set(cells["model"]) == set(preset.models) == set(runs.bases["model"]) and set(cells["recipe"]) == set(preset.recipes)
    assert set(cells["dataset"]) == set(preset.datasets) and set(cells["batch_size"]) == set(preset.batch_sizes)
    assert set(cells["seed"]) == set(preset.seeds) and set(cells["spectral_lambda"]) == set(preset.spectral_lambda)
    assert cells["family"].nunique() == 3 and cells["parameters"].nunique() >= 3 and cells["recipe"].nunique() == 5
    # Counted by hand from the issue's axes: models x recipes (or rates) x datasets x batch sizes x seeds, runs that two parts share once.
    assert {s: len(runs.of(s)) for s in STUDIES} == {
        "main": 3 * 4 * 4 * 2 + 4 * 4 * 7,
        "scale": 9 * 4 * 2,
        "loss-alignment": 9 * 4 * 2,
        "dynamics": 4 * 4 * 8,
        "regularisation": 4 * 4 * 8,
    }
    shared = 3 * 4 * 2 + 4 * 4 * 2  # of main: Adam's with scale; four recipes' fixed rates with loss-alignment
    assert len(cells) == 208 + 72 + 72 + 128 + 128 - shared and len(runs.checkpoints) > 100 and cells["train_loss"].notna().all()
    assert [r.missing for r in runs.sources] == [[]]


@whole
def test_every_analysis_has_its_numbers(tables):
    # Bases of several seeds are the preset ablations'.
    missing = {t.id: t.gap for t in tables if t.gap}
    assert all(t.rows for t in tables if not t.gap), "an empty table"
    assert set(missing) == {"rates-by-base-seed", "ablation-claims"} and all("pre-training" in why for why in missing.values())


@whole
def test_the_committed_tables_follow_from_the_committed_results(folder, tables):
    committed = {p.name: p.read_text(encoding="utf-8") for p in (folder / "tables").iterdir()}
    made = quotable(tables)
    assert set(committed) == set(made)
    for name, text in made.items():
        assert NUMBER.split(text) == NUMBER.split(committed[name]), name
        for ours, theirs in zip(NUMBER.findall(text), NUMBER.findall(committed[name]), strict=True):
            digits = len(ours.partition(".")[2]) if "e" not in ours.lower() else 0
            # another BLAS may round the last digit the other way
            assert float(ours) == pytest.approx(float(theirs), rel=2e-3, abs=1.01 * 10**-digits if digits else 1e-12), name


def test_the_log_quotes_the_verdicts_as_they_are(folder):
    log = Path(__file__).parents[2] / "docs" / "LOG.md"
    body = (folder / "tables" / "verdicts.md").read_text(encoding="utf-8").split("\n\n", 1)[1].strip()
    assert body in log.read_text(encoding="utf-8"), (
        "put baselines/results/tiny-paper/tables/verdicts.md into the entry of docs/LOG.md"
    )
