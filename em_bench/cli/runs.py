"""`em-bench runs`: the runs in a folder and where they stand; the figures of one."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `runs`."""
    app.command()(runs)


def runs(
    folder: Annotated[
        Path, typer.Argument(help="The folder of run folders (train's --out), or one run folder for --plot.")
    ] = Path("em_bench_work/runs"),
    plot: Annotated[
        Path | None, typer.Option(help="Draw losses and spectrum of the run FOLDER into this .svg or .png file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List runs: done, running, interrupted (the same train command goes on), failed (with the step and the reason).

    Example:

        em-bench runs em_bench_work/runs
        em-bench runs em_bench_work/runs/RUN --plot run.svg
    """
    import json

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from em_bench.training.list_runs import list_runs

    if plot:
        from em_bench.training.plots import draw, read_log

        draw(read_log(folder), folder.resolve().name, plot)
        print(plot)
        return
    found = list_runs(folder)
    if as_json:
        print(json.dumps([r.model_dump() for r in found], indent=1))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("status")
    for head in ("step", "loss", "narrow loss", "seconds"):
        table.add_column(head, justify="right")
    for r in found:
        step = f"{r.step}/{r.steps}" if r.steps else ("" if r.step is None else str(r.step))
        numbers = ("" if v is None else format(v, f) for v, f in ((r.loss, ".4f"), (r.narrow_loss, ".4f"), (r.wall_s, ".0f")))
        table.add_row(Text(r.run_id), r.status, step, *numbers)
        if r.problem:
            table.add_row(Text(f"  {r.problem}", style="red"))
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
