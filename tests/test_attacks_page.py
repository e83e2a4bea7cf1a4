"""docs/attacks.md: each attack names the tests that play it, and they are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_attack_names_tests_that_are_there():
    rows = [line.split(" | ") for line in (ROOT / "docs" / "attacks.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    rows = [cells for cells in rows if not cells[0].startswith("| attack")]
    assert len(rows) > 30
    for cells in rows:
        assert len(cells) == 4 and all(c.strip("| ") for c in cells), cells
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cells[3])
        assert named, cells[0]
        for file, test in named:
            functions = [n.name for n in ast.parse((ROOT / file).read_text("utf-8")).body if isinstance(n, ast.FunctionDef)]
            assert test in functions, f"{file}: {test}"


def test_the_promises_lead_to_it():
    assert "(docs/attacks.md)" in (ROOT / "SECURITY.md").read_text("utf-8")
