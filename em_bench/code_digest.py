"""The identity of code: a digest of the sources that some modules import from em_bench, at any depth, also inside functions.

All of em_bench is read once, when this module is imported with the rest of a process's code: what is edited later is neither run by
that process nor recorded as if it were.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from em_bench.errors import UserError

_PACKAGE = Path(__file__).resolve().parent


def _sources() -> dict[str, bytes]:
    """Every file of the package by its place in it, but for the data that a wheel carries beside the code."""
    found = {p.relative_to(_PACKAGE): p for p in sorted(_PACKAGE.rglob("[!.]*"))}
    ours = {place: p for place, p in found.items() if place.parts[0] != "assets" and "__pycache__" not in place.parts}
    return {place.as_posix(): p.read_bytes() for place, p in ours.items() if p.is_file()}


_LOADED = _sources()


@cache
def code_digest(*modules: str) -> str:
    """First 16 hex digits of the sha256 over the sources of the `closure` of modules such as `em_bench.training.run`."""
    h = hashlib.sha256()
    for name in closure(*modules):
        h.update(name.encode() + b"\0" + hashlib.sha256(_LOADED[name]).digest())
    return h.hexdigest()[:16]


@cache
def closure(*modules: str) -> tuple[str, ...]:
    """The files of em_bench that these modules import at any depth, themselves included, as paths in the package.

    What lies in a package beside them and is no Python (templates, lists of names) is read by them and counts. Imports for type
    checkers alone do not. Raises ValueError for a module that is not there.
    """
    ahead = []
    for module in modules:
        files = _files(module)
        if len(files) != len(module.split(".")):  # a package's __init__ at every dot
            raise ValueError(f"{module}: no such module")
        ahead += files
    found: set[str] = set()
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += [f for module in _imports(name) for f in _files(module)]
    packages = {PurePosixPath(f).parent for f in found}
    return tuple(sorted(found | {f for f in _LOADED if not f.endswith(".py") and _package(f) in packages}))


@cache
def check_loaded() -> None:
    """To be called when a process has loaded its code. Raises UserError where em_bench was edited meanwhile: what it then runs has no name."""
    now = _sources()
    if changed := sorted(f for f in now.keys() | _LOADED.keys() if now.get(f) != _LOADED.get(f)):
        raise UserError(f"em_bench/{changed[0]}: edited while this process was loading its code; give the same command again")


def _files(module: str) -> list[str]:
    """The files that importing a dotted name runs, none if it is not of em_bench."""
    top, *parts = module.split(".")
    if top != "em_bench":
        return []
    places = ["__init__.py"]
    for n in range(1, len(parts) + 1):
        at = "/".join(parts[:n])
        places += [f"{at}/__init__.py", f"{at}.py"]
    return [p for p in places if p in _LOADED]


@cache
def _imports(name: str) -> tuple[str, ...]:
    return tuple(_imported(ast.parse(_LOADED[name], name)))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{a.name}" for a in node.names)
    run = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        run = iter(node.orelse)
    for child in run:
        yield from _imported(child)


def _package(name: str) -> PurePosixPath:
    return next(p for p in PurePosixPath(name).parents if (p / "__init__.py").as_posix() in _LOADED)
