"""How the sweep's own work grows with the number of jobs: planning, dispatch and aggregation of 100 and of 1,000.

    python benchmarks/sweep.py [--small 100] [--large 1000] [--json]

The plan, the engine with its Snakemake, the display and the report are the real ones; a job is `mv`, which puts a done file in its
place, and its evaluation is a copy of one of `tiny`. Prints CPU milliseconds a job of each phase at both sizes, which other work on the
machine does not touch, and the ratios (at most 1.5).
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from em_bench import assets
from em_bench.analysis.runs import load_runs
from em_bench.evaluation_folder import CELL
from em_bench.records import CellResult, Results
from em_bench.sweep.engine.controller_lock import controller_lock
from em_bench.sweep.engine.display import shown
from em_bench.sweep.engine.profile import ExecutionProfile
from em_bench.sweep.engine.run_preset import report
from em_bench.sweep.engine.snakemake_run import run_plan, wanted
from em_bench.sweep.engine.status import status_table
from em_bench.sweep.engine.sweep_progress import SweepProgress
from em_bench.sweep.job_time import Assumptions
from em_bench.sweep.jobs import JobDone, Plan, done_path, read_done, read_order
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import Preset, load_preset
from em_bench.sweep.results_tables import results_tables
from em_bench.sweep.terminal_tables import totals_tables
from em_bench.sweep.totals import totals

GOAL = 1.5
MODELS = ("Qwen3-4B", "Qwen3-32B", "Llama-3.3-70B-Instruct")  # runs on one GPU, on two and on four
READS = 3  # of its own part of the plan by a job: job.py's main, run_here and do
GPUS = tuple(map(str, range(8)))


def preset_of(jobs: int) -> Preset:
    """A preset of about so many jobs, a cell each: more seeds, nothing else."""
    main = load_preset("main")
    a_seed = 2 * len(MODELS) * len(main.datasets)  # a training and an evaluation
    seeds = max(1, round((jobs - 2 * len(MODELS) - 1) / a_seed))
    axes = {"models": MODELS, "recipes": ("adam",), "batch_sizes": (16,), "seeds": tuple(range(seeds)), "pack": 1}
    return Preset.model_validate(main.model_dump() | axes | {"name": f"simulated-{jobs}"})


def simulate(jobs: int, work: Path) -> dict[str, float]:
    """CPU seconds of each phase of a sweep of about so many jobs, and how many there were."""
    plan, planning = timed(lambda: planned(jobs))
    prepare(plan, work)
    left, dispatch = timed(lambda: dispatched(plan, work))
    results, aggregation = timed(lambda: aggregated(plan, work))
    wanted = sum(len(j.cells) for j in plan.jobs if j.kind == "evaluate")
    if left or results.missing or len(results.cells) != wanted:
        raise SystemExit(
            f"{len(left)} jobs are not done, {len(results.missing)} cells are missing; {work / 'snakemake.log'} says why"
        )
    return {"jobs": len(plan.jobs), "planning": planning, "dispatch": dispatch, "aggregation": aggregation}


def planned(jobs: int) -> Plan:
    """What `em-bench plan` does."""
    plan = make_plan(preset_of(jobs))
    totals_tables(totals(plan, cores=2, gpus=len(GPUS), assume=Assumptions()))
    return plan


def prepare(plan: Plan, work: Path) -> None:
    """Beside the work folder, what each job is going to put in its place; in it, what the evaluations made."""
    [tiny] = load_runs([assets.path("baselines", "results", "tiny")]).sources
    trained, base = (next(c for c in tiny.cells if (c.recipe is None) == untouched) for untouched in (False, True))
    for job in plan.jobs:
        done = JobDone(job=job.id, key=job.key, wall_s=0.0)
        if job.kind == "evaluate":
            done = done.model_copy(update={"evaluations": {c.name: c.name.replace(" ", ".") for c in job.cells}})
            for cell in job.cells:
                like = trained if cell.recipe else base
                result = CellResult.model_validate(like.model_dump() | cell.model_dump())
                put(work / "evaluations" / done.evaluations[cell.name] / CELL, result)
        put(ready(work) / job.id / done_path(work, job).name, done)


def put(path: Path, record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record.model_dump_json())  # not synced to the disk, as files.write_record does: this is not measured


def ready(work: Path) -> Path:
    return work.with_name(f"{work.name}-ready")


def dispatched(plan: Plan, work: Path) -> list:
    """What `em-bench reproduce` does until its last job ends; what each real job reads before it begins is added."""
    job = ("sh", "-c", f"exec mv {ready(work).resolve()}/$0/* jobs/$0/")
    console = Console(file=open(os.devnull, "w"), force_terminal=True, width=120)
    here = ExecutionProfile(len(GPUS), GPUS)
    with controller_lock(work) as lock, shown(SweepProgress(plan.preset.name, wanted(plan), work, here), console) as poll:
        left = run_plan(plan, work, lock, profile=here, on_poll=poll, job_command=job)
    for job in plan.jobs[:-1]:  # but the report
        for _ in range(READS):
            order = read_order(work, job.id)
        assert all(read_done(work, n) for n in order.needs)
    return left


def aggregated(plan: Plan, work: Path) -> Results:
    """What `em-bench reproduce` does after its last job, and what `em-bench status` does."""
    results, _ = report(plan, work, time.monotonic(), complete=True)
    results_tables(results)
    status_table(plan, work)
    return results


def timed(phase: Callable):
    """What it returns, and CPU seconds of this process and of its children."""
    before = cpu()
    found = phase()
    return found, cpu() - before


def cpu() -> float:
    mine, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime


def main() -> int:
    """Measure, print, and return 1 where a bound is broken."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--small", type=int, default=100)
    options.add_argument("--large", type=int, default=1000)
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    top = Path(tempfile.mkdtemp(prefix="em_bench_sweep_"))
    try:
        simulate(30, top / "imports")
        small, large = (simulate(n, top / str(n)) for n in (asked.small, asked.large))
    finally:
        shutil.rmtree(top)
    phases = ("planning", "dispatch", "aggregation")
    found = {"jobs": [s["jobs"] for s in (small, large)]}
    for phase in phases:
        each = [1000 * s[phase] / s["jobs"] for s in (small, large)]
        found[phase] = {"CPU ms a job": each, "ratio": each[1] / each[0]}
    if asked.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{'CPU ms a job':14}{found['jobs'][0]:>10} jobs{found['jobs'][1]:>10} jobs     ratio")
        for phase in phases:
            each, ratio = found[phase].values()
            print(f"{phase:14}{each[0]:>15.2f}{each[1]:>15.2f}{ratio:>10.2f} (goal <= {GOAL})")
    return int(any(found[phase]["ratio"] > GOAL for phase in phases))


if __name__ == "__main__":
    sys.exit(main())
