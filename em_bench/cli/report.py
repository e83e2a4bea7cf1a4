"""`em-bench report`: the paper's tables and figures beside those of any set of runs."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `report`."""
    app.command()(report)


def so_far(work: Path):
    """The results of a sweep that has not ended."""
    from em_bench.sweep.jobs import read_plan
    from em_bench.sweep.results import collect

    return collect(read_plan(work), work)


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="results.json files (.gz too), or work folders of `em-bench reproduce`, ended or not."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report.html, tables/ and figures/.")] = Path(
        "em_bench_report"
    ),
    paper: Annotated[
        bool, typer.Option("--paper", help="Run the preset tiny-paper first (or go on with it), and report it too.")
    ] = False,
    work: Annotated[Path | None, typer.Option("--workdir", "-w", help="Of --paper. Default: em_bench_work/tiny-paper.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Of --paper: jobs at once. Default: all cores.")] = None,
    keep: Annotated[
        bool, typer.Option("--pack", help="Also write the results that were read as results.json.gz in --out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Analyse runs as "Evil Spectra" does: each finding of the paper, its value, ours, and whether it reproduces.

    Writes one self-contained page, every table as CSV, Markdown and LaTeX, and every figure as SVG and PNG. Runs of
    different benchmark versions are refused. What the runs cannot tell is said, with the sample that would tell it.

        em-bench report em_bench_work/tiny
        em-bench report --paper --out paper-report
    """
    import json
    import sys

    from rich import box
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Table

    from em_bench.errors import UserError

    runs, failures = list(runs or []), ""
    if not runs and not paper:
        raise UserError("report: no runs; name results.json files or work folders, or give --paper")
    for path in runs:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; name a work folder of `em-bench reproduce` or a results file")
    from em_bench.analysis.report import write_report
    from em_bench.analysis.runs import load_runs, pack

    if paper:
        from em_bench.sweep.engine.run_preset import reproduce
        from em_bench.sweep.job_time import all_cores
        from em_bench.sweep.plan import make_plan
        from em_bench.sweep.preset import load_preset

        work = work or Path("em_bench_work") / "tiny-paper"
        failures = reproduce(make_plan(load_preset("tiny-paper")), work, cores=cores or all_cores()).failures
        runs.append(work)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(markup=False, emoji=False, file=sys.stderr), transient=True) as bar:
        task = bar.add_task("reading runs")
        read = load_runs(runs, so_far)
        if keep:
            pack(read, out)
        written = write_report(read, out, progress=lambda what: bar.update(task, description=what))
    if as_json:
        print(
            json.dumps(
                {"page": str(written.page), "findings": [f.model_dump() for f in written.findings]},
                indent=1,
                ensure_ascii=False,
            )
        )
    else:
        table = Table(box=box.SIMPLE)
        for name in ("finding", "study", "paper", "ours", "verdict", "to tell"):
            table.add_column(name)
        for f in written.findings:
            table.add_row(
                f.claim,
                f.study,
                f"{f.paper} ({f.provenance})",
                f"{f.ours}: {f.why}" if f.verdict == "cannot tell" else f.ours,
                f.verdict,
                f.needed,
            )
        console = Console(markup=False, emoji=False, highlight=False)
        (console if console.is_terminal else Console(markup=False, emoji=False, width=200, highlight=False)).print(table)
        print(written.page)
    if failures:
        print(failures, file=sys.stderr)
        raise typer.Exit(1)
