"""A leaderboard without the baseline's results, as outside a clone: the installed ones are compared with, never the entry itself."""

import shutil
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from em_bench import assets
from em_bench.board.benchmark import load_benchmark
from em_bench.board.board import Folders, judge_entry, read_board
from em_bench.cli import build


@pytest.fixture
def alone(board, tmp_path, monkeypatch) -> Folders:
    """The baseline is gone from the leaderboard, and lies in the assets of an installation, empty but for it."""
    there = tmp_path / "assets" / "leaderboard" / "submissions"
    there.mkdir(parents=True)
    shutil.move(board.submissions / "adamw", there / "adamw")
    monkeypatch.setattr(assets, "root", lambda: tmp_path / "assets")
    return board


def numbers(folders: Folders):
    [row] = [r for r in read_board(folders, "v2", "organism").rows if r.name == "better"]
    assert row.score == judge_entry(folders, "better").score
    return row


def test_the_installed_baseline_is_compared_with(board, tmp_path, monkeypatch, original):
    here = numbers(Folders.at(original)).score
    assert here.difference.value < -0.1 and here.ranked
    there = tmp_path / "assets" / "leaderboard" / "submissions"
    there.mkdir(parents=True)
    shutil.move(board.submissions / "adamw", there / "adamw")
    monkeypatch.setattr(assets, "root", lambda: tmp_path / "assets")
    assert numbers(board).score == here


def test_without_any_nothing_is_compared(alone):
    shutil.rmtree(assets.path("leaderboard", "submissions", "adamw"))
    row = numbers(alone)
    assert row.score.difference is None and row.score.end_difference is None and not row.score.ranked and row.rank is None
    assert {g.id: g.detail for g in row.score.gates if not g.passed} == {
        "capability": "cannot be compared: no results of the baseline are here"
    }
    top = str(alone.submissions.parent)
    said = CliRunner().invoke(build(), ["submit", "check", "better", "--leaderboard", top]).output.splitlines()[-1]
    assert said.endswith("; cannot be compared with AdamW, whose results are not here") and "+0.0" not in said


def test_a_baseline_that_fails_its_checks_is_none(alone):
    file = assets.path("leaderboard", "submissions", "adamw", "results", "responses.parquet")
    file.write_bytes(file.read_bytes() + b" ")
    assert numbers(alone).score.difference is None


def test_every_pinned_baseline_is_in_the_wheel():
    shipped = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    benchmark = load_benchmark("v2")
    for pinned in (b for b in benchmark.baselines.values() if b.manifest_sha256):
        folder = f"leaderboard/submissions/{pinned.entry}"
        assert shipped["force-include"][folder] == f"em_bench/assets/{folder}" and assets.path(folder, "results").is_dir()
