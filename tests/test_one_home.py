"""A fact has one home: names of files are quoted where the folder that holds them is described, and nowhere else."""

import ast
from pathlib import Path

import pytest

import em_bench
from em_bench import evaluation_folder, run_folder

PACKAGE = Path(em_bench.__file__).parent
HOMES = {
    "run_folder.py": {run_folder.RECORD, run_folder.LOG, run_folder.CONFIG, run_folder.WEIGHTS},
    "evaluation_folder.py": set(evaluation_folder.CHAIN)
    | set(evaluation_folder.MARGINS.values())
    | {evaluation_folder.MARGIN_SCORE, evaluation_folder.CELL},
}


def quoted(path: Path) -> set[str]:
    """Every string of a module that is neither a docstring nor part of a longer sentence."""
    return {n.value for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant)}


@pytest.mark.parametrize("home", HOMES)
def test_file_names_are_quoted_in_one_module(home):
    found = {
        path.relative_to(PACKAGE).as_posix(): names
        for path in PACKAGE.rglob("*.py")
        if (names := {str(v) for v in quoted(path)} & HOMES[home])
    }
    assert set(found) == {home}, found
