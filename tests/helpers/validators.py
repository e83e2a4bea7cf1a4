"""Validators of others' formats, in a folder of their own (`make install`): their types and their Python would change what is tested here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLACE = Path(__file__).parents[2] / ".venv" / "validators"


def need(module: str) -> None:
    """Skip the test where the folder lacks a validator."""
    if not (PLACE / module).is_dir():
        pytest.skip(f"no {module} in {PLACE}: make install")


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` that finds them."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, timeout=120, cwd=cwd, env=os.environ | {"PYTHONPATH": str(PLACE)},
    )  # fmt: skip
