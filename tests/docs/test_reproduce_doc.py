"""The plans in docs/reproduce.md are what the command prints."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from em_bench.cli import build

DOC = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("preset, gpus", [("main", 8), ("scale", 16), ("baselines", 16)])
def test_the_plan_as_printed(preset, gpus):
    done = CliRunner().invoke(build(), ["plan", "--preset", preset, "--gpus", str(gpus)])
    assert done.exit_code == 0, done.output
    printed = [line.rstrip() for line in done.stdout.strip().splitlines() if line.strip()]
    written = [line.rstrip() for line in DOC.splitlines() if line.strip()]
    at = written.index(printed[0])
    assert written[at : at + len(printed)] == printed
