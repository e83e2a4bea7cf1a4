"""`em-bench submit`: an optimiser author's side of the leaderboard."""

from pathlib import Path
from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(help="Name of the entry: its folder under leaderboard/submissions.")]
Top = Annotated[Path, typer.Option("--leaderboard", help="Folder with submissions/ and benchmark/.")]
DEFAULT = Path("leaderboard")


def register(app: typer.Typer) -> None:
    """Add `submit` and its commands."""
    commands = typer.Typer(
        no_args_is_help=True, help="Enter an optimiser: init, edit submission.yaml, run, check, open a pull request."
    )
    for command in (init, run, check, status, unpack):
        commands.command()(command)
    app.add_typer(commands, name="submit")


def init(name: Name, leaderboard: Top = DEFAULT) -> None:
    """Write a commented submission.yaml in a new folder.

    em-bench submit init my-optimiser
    """
    import sys

    from em_bench.board.submission import FILE, NAME, template
    from em_bench.errors import UserError
    from em_bench.files import write_text

    if not NAME.fullmatch(name):
        raise UserError(f"{name}: not a name; use 3 to 40 lower-case letters, digits and hyphens, e.g. my-optimiser")
    path = leaderboard / "submissions" / name / FILE
    if path.parent.exists():
        raise UserError(f"{path.parent}: is there already; edit {path}, or choose another name")
    write_text(path, template(name))
    print(path)
    print(f"next: fill it in, then em-bench submit run {name}", file=sys.stderr)


def run(
    name: Name,
    leaderboard: Top = DEFAULT,
    work: Annotated[Path | None, typer.Option("--workdir", "-w", help="Default: em_bench_work/submit-NAME.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Jobs at once. Default: all cores.")] = None,
) -> None:
    """Look for an entry's learning rate, train and evaluate every cell and seed, and fill its results folder.

    Kill it at any moment and run it again: it goes on. The learning rate is looked for on held-out narrow loss alone. Exit code 1
    when a job failed; what the others made is kept, and the entry says what is missing.

        em-bench submit run my-optimiser
    """
    import sys

    from em_bench.board.benchmark import load_benchmark
    from em_bench.board.board import Folders
    from em_bench.board.make_entry import pack, ready
    from em_bench.board.own_code import stage
    from em_bench.board.submission import read_submission
    from em_bench.sweep.engine.run_preset import reproduce
    from em_bench.sweep.job_time import all_cores
    from em_bench.sweep.plan import make_plan

    folders = Folders.at(leaderboard)
    folder = folders.submissions / name
    entry = read_submission(folder)
    tier = load_benchmark(entry.benchmark, folders.benchmarks).tiers[entry.tier]
    work = work or Path("em_bench_work") / f"submit-{name}"
    if entry.optimizer.file:
        stage(folder, work / "own")
        _on_path(work / "own")
    plan = make_plan(ready(entry, folder, tier, own_code=True))
    ended = reproduce(plan, work, cores=cores or all_cores())
    if ended.failures:
        print(ended.failures, file=sys.stderr)
    manifest = pack(entry, folder, tier, plan, work)
    for cell, reason in manifest.missing.items():
        print(f"missing: {cell}: {reason}", file=sys.stderr)
    print(
        f"{folder}: {len(manifest.cells)} runs evaluated, {len(manifest.tuning)} candidates; next: em-bench submit check {name}"
    )
    if ended.failures:
        raise typer.Exit(1)


def check(
    name: Annotated[str | None, typer.Argument(help="An entry; default: all of them.", show_default=False)] = None,
    leaderboard: Top = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Say what a maintainer would say: every check with its sentence, what failed, and the entry's numbers.

    Reads data only and runs no code of the entry. Exit code 1 if a check fails.

        em-bench submit check my-optimiser
    """
    from em_bench.board.board import Folders, check_ready, judge_entries, judge_entry
    from em_bench.cli.leaderboard import show_checks

    folders = Folders.at(leaderboard)
    if name:
        check_ready(folders, name)
    found = {name: judge_entry(folders, name)} if name else judge_entries(folders)
    if not show_checks(found, as_json, every=True):
        raise typer.Exit(1)


def status(
    name: Annotated[str | None, typer.Argument(help="An entry; default: all of them.")] = None,
    leaderboard: Top = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how far each entry is: not valid, written, run; of one that is NAMED also whether its checks pass.

    em-bench submit status my-optimiser
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from em_bench.board.board import Folders, progress_of
    from em_bench.errors import UserError

    folders = Folders.at(leaderboard)
    if name and name not in folders.names():
        raise UserError(f"{name}: no such entry under {folders.submissions}; `em-bench submit init {name}` makes it")
    rows = [(n, *progress_of(folders, n, checked=n == name)) for n in ([name] if name else folders.names())]
    if as_json:
        print(json.dumps([dict(zip(("name", "state", "next"), r, strict=True)) for r in rows], indent=1))
        return
    table = Table("entry", "state", "next", box=None)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False, soft_wrap=True).print(table)


def unpack(
    name: Name,
    out: Annotated[Path, typer.Argument(help="A new folder: runs/ID/ and evaluations/NAME/ go there.")],
    leaderboard: Top = DEFAULT,
) -> None:
    """Write an entry's runs and evaluations as the JSON lines that its hashes are of.

    em-bench submit unpack adamw adamw-rows && em-bench verify adamw-rows
    """
    from em_bench.board.board import Folders
    from em_bench.board.entry import RESULTS
    from em_bench.board.packed import Packed
    from em_bench.errors import UserError
    from em_bench.files import atomic_folder

    folders = Folders.at(leaderboard)
    if name not in folders.names():
        raise UserError(f"{name}: no such entry under {folders.submissions}; name one of its folders")
    if out.exists():
        raise UserError(f"{out}: is there already; name a new folder")
    with atomic_folder(out) as made:
        Packed(folders.submissions / name / RESULTS).unpack(made)
    print(out)


def _on_path(folder: Path) -> None:
    """Let this process and the jobs that it starts import from `folder`."""
    import os
    import sys

    where = str(folder.resolve())
    sys.path.insert(0, where)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (where, os.environ.get("PYTHONPATH"))))
