"""Throughput measured in earlier sweeps, in place of assumptions."""

from collections import defaultdict
from pathlib import Path
from statistics import median

from em_bench.errors import UserError
from em_bench.files import read_record
from em_bench.records import RunRecord
from em_bench.sweep.jobs import JobDone, read_plan
from em_bench.sweep.source_info import responses


def measured(work: Path) -> dict[str, dict[str, float]]:
    """`row_s` and `response_s` of `Assumptions`, by model, from a work folder's finished runs and evaluations.

    Medians over runs and jobs. Raises UserError where the folder holds no finished run.
    """
    rows: dict[str, list[float]] = defaultdict(list)
    for path in work.glob("runs/*/run.json"):
        run = read_record(path, RunRecord)
        rows[run.spec.base.name].append(run.wall_s / (run.spec.steps * run.spec.batch_size))
    if not rows:
        raise UserError(f"{work}: no finished run to measure by; name the work folder of a sweep that has run")
    answers: dict[str, list[float]] = defaultdict(list)
    plan = read_plan(work)
    generates = "answer" if plan.preset.evaluation.engine == "vllm" else "evaluate"
    for job in plan.jobs:
        for path in work.glob(f"jobs/{job.id}/done-{job.key}.json") if job.kind == generates else ():
            done = read_record(path, JobDone)
            asked = len(done.evaluations) + sum(map(len, done.checkpoints.values()))
            if asked:
                answers[job.cells[0].model].append(done.wall_s / (asked * responses(plan.preset.evaluation)))
    return {
        "row_s": {name: median(found) for name, found in rows.items()},
        "response_s": {name: median(found) for name, found in answers.items()},
    }
