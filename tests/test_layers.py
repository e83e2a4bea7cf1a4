"""The folder tree is the architecture: a module imports only from layers above its own, read from the code itself."""

import ast
from pathlib import Path

import pytest

import em_bench

PACKAGE = Path(em_bench.__file__).parent
LAYERS = [
    {"errors", "records"},
    {"files", "assets"},
    {"machine"},
    {"organism"},
    {"data"},
    {"products"},
    {"optim", "spectral"},
    {"training"},
    {"judging"},
    {"scoring"},
    {"harness"},
    {"analysis"},
    {"board"},
    {"sweep"},
    {"cli"},
]
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}
HARNESSES = {"lm_eval", "inspect_ai"}


def layer_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names imported anywhere in a file, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}: relative import; write the absolute name")
    return found


SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_up(path):
    own = layer_of(path)
    assert own in RANK, f"{own}: give the new layer its place in LAYERS"
    names = imports(path)
    for name in names:
        parts = name.split(".")
        if parts[0] == "em_bench" and len(parts) > 1 and parts[1] in RANK and parts[1] != own:
            assert RANK[parts[1]] < RANK[own], f"{path.name} ({own}) imports {name}, which lies below it"
    if RANK[own] <= RANK["training"]:
        assert not {n.split(".")[0] for n in names} & HARNESSES, f"{path.name}: a GPU box may lack an evaluation harness"


def test_harnesses_do_not_import_each_other():
    for path in (PACKAGE / "harness").rglob("*.py"):
        roots = {n.split(".")[0] for n in imports(path)}
        assert not roots >= HARNESSES, f"{path.name} imports both harnesses"


def test_records_import_nothing_of_the_house():
    for name in ("records.py", "errors.py"):
        assert not {n for n in imports(PACKAGE / name) if n.startswith("em_bench")}
