"""Every test that docs/gpu.md names is there, every finding has a row, and what it says of baselines is what the plan says."""

import re

from helpers.reader import DOCS

TEXT = (DOCS / "gpu.md").read_text(encoding="utf-8")


def test_the_tests_it_names_are_there():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", TEXT)
    assert len(named) > 12
    for file, test in named:
        text = (DOCS.parent / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in text, f"{file}::{test}"


def test_every_finding_has_its_row():
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)] == list(range(1, 18))


def test_its_hours_are_those_of_the_printed_plan():
    """docs/reproduce.md prints the plan, and a test of its own holds it."""
    plan = (DOCS / "reproduce.md").read_text(encoding="utf-8").partition("--preset baselines")[2]
    total, training, generation, loading = (
        round(float(re.search(rf"{what} +([\d.,]+)", plan)[1])) for what in ("GPU-hours", "training", "generation", "loading")
    )
    assert f"{total} of an H200: training {training}, generation {generation}" in TEXT and f"loading {loading} |" in TEXT
