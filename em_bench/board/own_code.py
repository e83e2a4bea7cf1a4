"""An entry's own optimiser.py: read as text by everyone, run by its author alone.

It defines one function,

    def build(params, lr):
        '''The optimiser of these parameter groups at this learning rate.'''
        return MyOptimizer(params, lr=lr)

The run's identity names the file by its hash: the recipe's rule asks for em_bench_entry_<16 hex digits>.Optimiser.
"""

import ast
from pathlib import Path

from em_bench.board.submission import Submission
from em_bench.errors import UserError
from em_bench.files import read_text, sha256_file, write_text
from em_bench.records import ParamRule

FILE = "optimiser.py"
MAX_BYTES = 64 * 2**10

# What makes a class of the function, as recipes name classes. The instance is what `build` returns.
CLASS = """

import torch as _torch


class Optimiser(_torch.optim.Optimizer):
    def __new__(cls, params, lr):
        return build(params, lr)
"""


def rules_of(entry: Submission, folder: Path) -> tuple[ParamRule, ...]:
    """The recipe's rules of a submission. Raises UserError where it names a file that is not there or not of the form."""
    if entry.optimizer.file is None:
        return (ParamRule(pattern=".*", optimizer=entry.optimizer.library, kwargs=entry.optimizer.kwargs),)
    check_form(folder / FILE)
    return (ParamRule(pattern=".*", optimizer=f"{module_name(folder / FILE)}.Optimiser"),)


def module_name(path: Path) -> str:
    """The importable name of a file's very content."""
    return f"em_bench_entry_{sha256_file(path)[:16]}"


def check_form(path: Path) -> None:
    """Raise UserError unless the file is small Python that defines a documented `build(params, lr)`. It is parsed, not run."""
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{FILE}: no such file beside submission.yaml; write it, or name a `library` class")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{FILE}: over {MAX_BYTES >> 10} KiB; an optimiser is a page of code")
    try:
        tree = ast.parse(read_text(path, where=FILE))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise UserError(f"{FILE}: not Python ({type(e).__name__}); mend it") from None
    found = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "build"), None)
    if found is None or [a.arg for a in found.args.args] != ["params", "lr"]:
        raise UserError(f"{FILE}: defines no function build(params, lr); it returns a torch.optim.Optimizer")
    if not ast.get_docstring(found):
        raise UserError(f"{FILE}: build has no docstring; say what the optimiser does")


def stage(folder: Path, to: Path) -> None:
    """Write the importable module of an entry's own code into the folder `to`, which goes on the path of the runs."""
    source = read_text(folder / FILE)
    write_text(to / f"{module_name(folder / FILE)}.py", source + CLASS)
