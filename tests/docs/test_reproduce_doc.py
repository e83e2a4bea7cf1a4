"""docs/reproduce.md says what is printed now, and every test that it names is there."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.reader import DOCS
from typer.testing import CliRunner

from em_bench.cli import build

TEXT = (DOCS / "reproduce.md").read_text(encoding="utf-8")
PLANS = re.findall(r"```\n\$ em-bench (plan .*)\n((?:.*\n)*?)```", TEXT)
TESTS = Path(__file__).parents[1] / "sweep"


@pytest.mark.parametrize(("command", "printed"), PLANS, ids=[command for command, _ in PLANS])
def test_plans_are_as_printed(command, printed):
    assert CliRunner().invoke(build(), shlex.split(command)).stdout.rstrip() == printed.rstrip()


def test_the_doc_shows_the_large_sweeps():
    assert [shlex.split(command)[2] for command, _ in PLANS] == [
        "main",
        "scale",
        "loss-alignment",
        "dynamics",
        "regularisation",
        "baselines",
    ]


def test_the_tests_it_names_are_there():
    named = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", TEXT))
    assert len(named) >= 8
    for file, test in named:
        assert f"def {test}(" in (TESTS / file).read_text(encoding="utf-8")
