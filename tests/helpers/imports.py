"""The layers of em_bench, and what each of its modules imports, read from the code itself."""

import ast
from pathlib import Path

import em_bench

PACKAGE = Path(em_bench.__file__).parent


LAYERS = [
    {"line", "protocol"},
    {"errors", "records"},
    {"code_digest"},
    {"files", "assets", "thinking", "did_you_mean", "parent_death"},
    {"yaml_file", "run_folder", "evaluation_folder", "flatness", "pages"},
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
    {"hub"},
    {"api"},
    {"cli"},
]


RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}


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
