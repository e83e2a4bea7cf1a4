"""The folder tree is the architecture: a module imports only from layers above its own, read from the code itself."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import em_bench

PACKAGE = Path(em_bench.__file__).parent
LAYERS = [
    {"errors", "protocol"},
    {"records"},
    {"code_digest"},
    {"files", "assets", "pages", "thinking", "did_you_mean"},
    {"yaml_file", "run_folder", "evaluation_folder"},
    {"machine"},
    {"organism"},
    {"data"},
    {"adapter_file", "lora_linalg"},
    {"optim", "spectral"},
    {"training"},
    {"judging"},
    {"scoring"},
    {"harness"},
    {"analysis", "verify"},
    {"sweep"},
    {"sweep.engine"},
    {"board"},
    {"cli"},
]
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}
HARNESSES = {"lm_eval", "inspect_ai"}


def layer_of(module: str) -> str | None:
    """The layer of a dotted name: the longest that LAYERS names, None for what is not of the house."""
    parts = module.split(".")[1:] if module.startswith("em_bench.") else []
    return next((name for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in RANK), None)


def module_of(path: Path) -> str:
    return ".".join(("em_bench", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports(path: Path) -> set[str]:
    """Dotted names imported anywhere in a file, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # `from package import module` asks nothing else of the package.
            found |= {name if is_module(name := f"{node.module}.{a.name}") else node.module for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}: relative import; write the absolute name")
    return found


SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE)


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
    for name in ("errors.py", "protocol.py", "records.py"):
        assert {n for n in imports(PACKAGE / name) if n.startswith("em_bench")} <= {"em_bench.protocol"}
