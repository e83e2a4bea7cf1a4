"""The notebooks run from top to bottom, in an empty folder, and show what they say."""

import json
import re
from pathlib import Path

import pytest

from em_bench.data.questions import load

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


def run(name: str, folder, monkeypatch, capsys) -> str:
    """What its code prints."""
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8"))["cells"]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in cells if c["cell_type"] == "code"), (
        "commit it cleared"
    )
    monkeypatch.chdir(folder)
    names: dict = {}
    for cell in (c for c in cells if c["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), name, "exec"), names)
    return capsys.readouterr().out


def test_evaluate_a_checkpoint(base, tmp_path, monkeypatch, capsys):
    out = run("evaluate", tmp_path, monkeypatch, capsys)
    assert re.search(rf"\d+\.\d% \[.*\] of {2 * len(load('organism'))} answers asked for are misaligned, its base .* points", out)
    assert re.search(r"shift [+-]\d\.\d{4} \[", out) and "flatness gap 0." in out
    assert (tmp_path / "evaluation" / "base" / "score.json").is_file()


def test_the_spectral_term_in_a_run_of_trl(base, tmp_path, monkeypatch, capsys):
    pytest.importorskip("trl", reason="needs TRL (pip install em-bench[test])")
    out = run("spectral_term", tmp_path, monkeypatch, capsys)
    without, with_term = map(float, re.search(r"without the term (\S+), with it (\S+)\n", out).groups())
    assert 0 <= with_term < without / 2, "3 times the term flattens"
