"""What belongs together goes as one record: no function takes more than eight parameters."""

import ast
from collections.abc import Iterator
from pathlib import Path

import typer

import em_bench
from em_bench.cli import build

PACKAGE = Path(em_bench.__file__).parent
MOST = 8
ELSEWHERE = {  # whose signature is that of something else
    "em_bench.harness.inspect.local.LocalAPI.__init__": "Inspect's ModelAPI, and the -M options of its command line",
    "em_bench.harness.inspect.tasks.free_form": "the -T options of Inspect's command line",
    "em_bench.optim.muon.Muon.__init__": "torch.optim.Muon",
}


def functions(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(dotted name, definition) of all functions below a node."""
    for child in ast.iter_child_nodes(node):
        name = f"{inside}.{child.name}" if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else inside
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, child
        yield from functions(child, name)


def commands(app: typer.Typer) -> set[str]:
    """The functions behind a command line: a parameter of theirs is an option."""
    own = {f"{c.callback.__module__}.{c.callback.__qualname__}" for c in app.registered_commands if c.callback}
    return own.union(*(commands(g.typer_instance) for g in app.registered_groups if g.typer_instance))


def test_no_function_takes_more_than_eight_parameters():
    long, exempt = {}, commands(build())
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(("em_bench", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8")), module):
            a = function.args
            taken = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs) if p.arg not in ("self", "cls")]
            if len(taken) > MOST and name not in exempt:
                long[name] = len(taken)
    assert "em_bench.cli.train.train" in exempt
    assert long.keys() == ELSEWHERE.keys(), long
