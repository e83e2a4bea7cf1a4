"""`em-bench status`: where a sweep stands, asked from another terminal."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `status`."""
    app.command()(status)


def status(
    work: Annotated[Path, typer.Option("--workdir", "-w", help="The sweep's work folder.")] = Path("em_bench_work/tiny"),
    jobs: Annotated[bool, typer.Option("--jobs", help="List every job, also where there are many.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the jobs of a work folder: waiting, running, done or failed; of many, those that run or have failed."""
    import json

    from em_bench.errors import UserError
    from em_bench.sweep.engine.controller_lock import controller
    from em_bench.sweep.engine.status import status as standing
    from em_bench.sweep.engine.status import status_table
    from em_bench.sweep.jobs import read_plan
    from em_bench.sweep.terminal_tables import FEW, show

    if not work.is_dir():
        raise UserError(f"{work}: no sweep there; `em-bench reproduce` begins one, --workdir names another")
    plan, pid = read_plan(work), controller(work)
    if as_json:
        rows = []
        for job in plan.jobs:
            now, state = standing(work, job)
            rows.append({"job": job.id, "status": now, "state": state and state.model_dump(mode="json")})
        print(json.dumps({"preset": plan.preset.name, "controller": pid, "jobs": rows}, indent=1))
        return
    show(status_table(plan, work, every=jobs or len(plan.jobs) <= FEW))
    print(f"em-bench reproduce is at work (process {pid})" if pid else "nothing is at work here")
