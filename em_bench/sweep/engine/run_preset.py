"""All of a preset: lock the work folder, run the jobs, collect what is there, write the page."""

import json
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from em_bench.errors import UserError
from em_bench.files import read_record, room_in, sha256_file, write_record
from em_bench.records import Results
from em_bench.sweep.engine.controller_lock import controller_lock
from em_bench.sweep.engine.display import failures, shown
from em_bench.sweep.engine.gpu_lease import devices
from em_bench.sweep.engine.profile import ExecutionProfile
from em_bench.sweep.engine.snakemake_run import check, run_plan, start_over, wanted
from em_bench.sweep.engine.sweep_progress import SweepProgress
from em_bench.sweep.frozen_inputs import freeze
from em_bench.sweep.jobs import Inputs, Job, JobDone, Plan, done_path, job_folder, read_done
from em_bench.sweep.results import collect


@dataclass(frozen=True)
class SweepOutcome:
    """How a sweep ended. `failures` is empty when every job is done."""

    results: Results
    page: Path
    failures: str


def reproduce(
    plan: Plan,
    work: Path,
    *,
    cores: int = 1,
    fresh: bool = False,
    profile: ExecutionProfile | None = None,
    only: str | None = None,
) -> SweepOutcome:
    """Run what is not done and report; `where` is this machine, with `cores` and all its GPUs, unless given; `only` a job and what it needs.

    Raises UserError where another controller is at work in the folder, or another preset has been, and for what would keep every job from its work:
    data that cannot be fetched, a judge without a key, too few GPUs.
    """
    if find_spec("snakemake") is None:
        raise UserError("the sweep engine: snakemake is not installed; pip install 'em-bench[reproduce]', and run this again")
    began = time.monotonic()
    profile = profile or ExecutionProfile(cores, devices() if any(j.gpus for j in plan.jobs) else ())
    with room_in(work), controller_lock(work) as lock_fd:
        if fresh:
            start_over(work)
        _refuse_another(plan, work)
        jobs = wanted(plan, only)
        inputs = _prepare(plan, jobs, work, profile)
        with shown(SweepProgress(plan.preset.name, jobs, work, profile)) as poll:
            left = run_plan(plan, work, lock_fd, profile=profile, inputs=inputs, on_poll=poll, only=only)
        complete = all(done_path(work, j).exists() for j in plan.jobs if j.kind != "report")
        return SweepOutcome(*report(plan, work, began, complete=complete), failures(plan, work, left))


def _refuse_another(plan: Plan, work: Path) -> None:
    """A work folder is of one preset, whose results and page it holds; a changed one of the same name is said."""
    try:
        there = json.loads((work / "plan.json").read_text(encoding="utf-8"))
        name, sha256 = there["preset"]["name"], there["preset_sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    if name != plan.preset.name:
        raise UserError(
            f"{work}: holds the work of preset {name}, whose results and page {plan.preset.name} would replace; "
            "name another folder with --workdir, or empty this one with --fresh"
        )
    if sha256 != plan.preset_sha256 and (work / "results.json").exists():
        print(
            f"preset {name} is another than the one that {work}/results.json is of; it and the page are made anew",
            file=sys.stderr,
        )


def _prepare(plan: Plan, jobs: list[Job], work: Path, profile: ExecutionProfile) -> Inputs:
    """Look for GPUs or the cluster; fetch here, where the network and the terms' prompt are, what jobs need; and see that the judge can be asked."""
    todo = [j for j in jobs if not done_path(work, j).exists()]
    if not todo:
        return Inputs()
    check(todo, profile)
    return freeze(plan.preset, todo)


def report(plan: Plan, work: Path, began: float, *, complete: bool) -> tuple[Results, Path]:
    """results.json and the page; made again only if a job has been done since, or one is missing."""
    job = next(j for j in plan.jobs if j.kind == "report")
    page = work / "report" / "index.html"
    kept = read_done(work, job)
    # Another plan, in the same folder, may have written its own results in between.
    if complete and kept and (work / "results.json").exists() and kept.results_sha256 == sha256_file(work / "results.json"):
        return read_record(work / "results.json", Results), page
    from em_bench.analysis.preset_page import write_page

    results = collect(plan, work, wall_s=time.monotonic() - began)
    write_record(work / "results.json", results, compact=True)
    write_page(results, page.parent)
    if complete:
        job_folder(work, job).mkdir(parents=True, exist_ok=True)
        done = JobDone(
            job=job.id, key=job.key, results_sha256=sha256_file(work / "results.json"), wall_s=time.monotonic() - began
        )
        write_record(done_path(work, job), done)
    return results, page
