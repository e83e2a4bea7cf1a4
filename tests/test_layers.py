"""The folder tree is the architecture: a module imports only from layers above its own, read from the code itself."""

from graphlib import TopologicalSorter

import pytest
from helpers.imports import PACKAGE, RANK, SOURCES, imports, layer_of, module_of

HARNESSES = {"lm_eval", "inspect_ai"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_up(path):
    own = layer_of(module_of(path))
    assert own, f"{path.name}: give the new layer its place in LAYERS"
    names = imports(path)
    for name in names:
        layer = layer_of(name)
        assert layer in (None, own) or RANK[layer] < RANK[own], f"{path.name} ({own}) imports {name}, which lies below it"
    if RANK[own] <= RANK["training"]:
        assert not {n.split(".")[0] for n in names} & HARNESSES, f"{path.name}: a GPU box may lack an evaluation harness"


def test_no_circles():
    """Not even inside a package, and not by an import inside a function."""
    modules = {module_of(path): path for path in SOURCES}
    graph = {name: (imports(path) & modules.keys()) - {name} for name, path in modules.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_harnesses_do_not_import_each_other():
    for path in (PACKAGE / "harness").rglob("*.py"):
        roots = {n.split(".")[0] for n in imports(path)}
        assert not roots >= HARNESSES, f"{path.name} imports both harnesses"


def test_records_import_nothing_of_the_house():
    for path in (*(PACKAGE / name for name in ("errors.py", "line.py", "protocol.py")), *(PACKAGE / "records").glob("*.py")):
        found = {n for n in imports(path) if n.startswith("em_bench") and not n.startswith("em_bench.records")}
        assert found <= {"em_bench.protocol", "em_bench.line"}, path.name
