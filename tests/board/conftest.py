"""A leaderboard of synthetic entries, made once and copied."""

import shutil
from pathlib import Path

import pytest
from helpers import synthetic_entries as synthetic

from em_bench.board.board import Folders


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    """Three entries: the baseline, a better one, one that did not learn."""
    top = tmp_path_factory.mktemp("leaderboard")
    folders = synthetic.leaderboard(top)
    synthetic.entry(folders, "adamw")
    synthetic.entry(folders, "better", lambda d, s: 0.02, library="torch.optim.NAdam")
    synthetic.entry(folders, "lazy", library="torch.optim.SGD", reached=False)
    return top


@pytest.fixture
def board(original, tmp_path) -> Folders:
    """A copy to spoil."""
    shutil.copytree(original, tmp_path / "lb")
    return Folders.at(tmp_path / "lb")
