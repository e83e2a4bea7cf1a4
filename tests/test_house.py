"""How the house is kept: files that can be read at a sitting, one package of test helpers, every import declared."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from helpers.imports import PACKAGE, imports

ROOT = Path(__file__).parents[1]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LIBRARY = sorted(PACKAGE.rglob("*.py"))


def test_no_file_is_long():
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in (*TESTS, *LIBRARY)}
    assert not {p.name: n for p, n in lines.items() if n > (350 if p in LIBRARY else 300)}


def test_what_tests_share_is_in_helpers():
    """pytest puts the folder of every test file on the path: whatever else lay there could be imported by accident."""
    helpers = ROOT / "tests" / "helpers"
    assert [p.name for p in TESTS if helpers not in p.parents and not re.match(r"test_\w+\.py|conftest\.py", p.name)] == []
    shared = {p.stem for p in TESTS if helpers not in p.parents}
    for path in TESTS:
        asked = {part for name in imports(path) if not name.startswith("em_bench") for part in name.split(".")}
        assert not asked & shared, f"{path.name}: put what it shares into tests/helpers"


def needed(path: Path) -> set[str]:
    """The packages that a module imports, but not those of a `try: import` that goes on without."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    optional = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.Try) and any("ImportError" in ast.dump(h) for h in block.handlers)
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in optional:
            continue
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_every_import_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()  # noqa: E731
    declared = {normal(re.match(r"[\w.-]+", line)[0]) for line in lines}
    of = packages_distributions()
    undeclared = {}
    for path in LIBRARY:
        for package in needed(path) - sys.stdlib_module_names - {"em_bench"}:
            if not {normal(d) for d in of.get(package, [package])} & declared:
                undeclared.setdefault(package, []).append(path.relative_to(PACKAGE).as_posix())
    assert undeclared == {}
