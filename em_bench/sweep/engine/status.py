"""Where a job stands: done, at work, failed or waiting; read from its own files, and for a cluster from its queue."""

import os
from collections import Counter
from pathlib import Path
from typing import Literal

from rich import box
from rich.table import Table

from em_bench.sweep.engine import slurm
from em_bench.sweep.jobs import Job, JobState, Plan, done_path, read_state

Status = Literal["done", "running", "failed", "waiting"]


def status(work: Path, job: Job) -> tuple[Status, JobState | None]:
    """Where a job stands, with its state if it has one. A job whose process is gone without a word has failed."""
    if done_path(work, job).exists():
        return "done", None
    state = read_state(work, job)
    if state is None:
        return "waiting", None
    return ("running" if state.status == "running" and _alive(state) else "failed"), state


def _alive(state: JobState) -> bool:
    if state.slurm_job:  # on another machine; one that was preempted is queued again
        return state.slurm_job in slurm.running()
    try:
        os.kill(state.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def status_table(plan: Plan, work: Path, every: bool = True) -> Table:
    """One row a job, as it stands now: of all, or of those that run or have failed."""
    table = Table(box=box.SIMPLE)
    for name in ("job", "stands", "cells", "loss", "doing"):
        table.add_column(name, justify="right" if name in ("cells", "loss") else "left")
    counts: Counter[str] = Counter()
    for job in plan.jobs:
        now, state = status(work, job)
        counts[now] += 1
        if every or now in ("running", "failed"):
            cells = f"{state.cells_done}/{state.cells}" if state and state.cells else ""
            table.add_row(
                job.id,
                now,
                cells,
                f"{state.loss:.3f}" if state and state.loss is not None else "",
                (state and (state.error or state.doing)) or "",
            )
    told = ", ".join(f"{counts[s]:,} {s}" for s in ("done", "running", "failed", "waiting"))
    table.title, table.title_justify = f"{plan.preset.name}: {told}", "left"
    return table
