"""`em-bench verify`: walk the hash chain of runs and evaluations."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `verify`."""
    app.command()(verify)


def verify(
    path: Annotated[Path, typer.Argument(help="A run, an evaluation, or a folder of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Recompute every hash, verdict, count, rate and interval below PATH that a CPU can; exit code 1 if any differs.

    Verdicts of the grammar judge are recomputed too. Nothing is generated and no submitted code runs.
    """
    import json

    from rich.console import Console
    from rich.text import Text

    from em_bench.verify.chain import unproven
    from em_bench.verify.chain import verify as walk

    found = list(walk(path))
    failed = [(folder, c) for folder, checks in found for c in checks if not c.passed]
    if as_json:
        print(json.dumps([{"folder": str(f), "checks": [c.model_dump() for c in checks]} for f, checks in found], indent=1))
    else:
        console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
        for folder, check in failed:
            console.print(Text.assemble(("FAIL", "red"), f" {folder}: {check.id}: {check.sentence}: {check.detail}"))
        for folder, what in unproven(path):
            console.print(Text.assemble(("NOTE", "yellow"), f" {folder}: {what}"))
        total = sum(len(checks) for _, checks in found)
        console.print(f"{len(found)} folders, {total} checks, {len(failed)} failed")
    if failed:
        raise typer.Exit(1)
