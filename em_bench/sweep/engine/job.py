"""What one job does, in this process: its order read, its work done, its done file written."""

import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from em_bench.data.hub import use_revision
from em_bench.data.models import base_path
from em_bench.errors import UserError
from em_bench.files import room_in, write_record
from em_bench.sweep.job_progress import Progress
from em_bench.sweep.jobs import Job, JobDone, JobOrder, done_path, job_folder, one_revision, read_done, read_order

SPOILT = 75  # EX_TEMPFAIL: the same job may succeed in a new process


def do(job_id: str) -> int:
    """The job itself, on this process and its peers if it has any; the first one speaks and writes.

    Returns an exit status: `SPOILT` where this process, its GPU's memory or its CUDA context, can do no other job either.
    """
    work, first = Path(), int(os.environ.get("RANK", "0")) == 0
    order = read_order(work, job_id)
    job = order.job
    folder = job_folder(work, job)
    began = time.monotonic()
    progress = Progress(folder / "state.json" if first else None, job.key, len(job.cells))
    try:
        with room_in(work.resolve()):
            done = _run(order, work, progress)
            if first:
                write_record(done_path(work, job), done.model_copy(update={"wall_s": time.monotonic() - began}))
    except Exception as e:
        if not isinstance(e, UserError):
            traceback.print_exc()
        last_words = f"{type(e).__name__}: {e}" if not isinstance(e, UserError) else str(e)
        print(last_words, flush=True)
        with suppress(OSError):  # where the disk is full, stdout has said it
            progress.update(status="failed", error=last_words)
        return SPOILT if _spoils(e) else 1
    return 0


def _spoils(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return False
    from em_bench.training.health import spoils

    return spoils(error)


def _done(work: Path, job: Job) -> JobDone:
    done = read_done(work, job)
    assert done is not None, job.id  # no job begins before those that it needs
    return done


def _run(order: JobOrder, work: Path, progress: Progress) -> JobDone:
    """Do a job; what an earlier call finished is not done again."""
    from em_bench.sweep.frozen_inputs import check  # here and below: imports of seconds, within the reach of the job's last words

    job = order.job
    if job.kind == "evaluate":
        from em_bench.sweep.evaluating import evaluate_cells
    elif job.kind == "answer":
        from em_bench.sweep.answering import answer_cells
    elif job.kind != "base":
        from em_bench.sweep.training import train_cells
    elif order.roster_model().source == "organism":
        import em_bench.organism.build  # noqa: F401
    check(order)
    earlier = [_done(work, need) for need in order.needs]
    revision = one_revision(job.model, (d for need, d in zip(order.needs, earlier, strict=True) if need.model == job.model))
    hub_id = order.roster_model().hub_id
    if hub_id and revision:
        use_revision(hub_id, revision)
    done = JobDone(job=job.id, key=job.key, revision=revision, wall_s=0.0)
    choices = {d.choice.kind: d.choice for d in earlier if d.choice}
    if job.kind == "base":
        folder = base_path(order.base, progress=False)
        return done.model_copy(update={"revision": folder.name if hub_id else None})
    runs = {cell: run for d in earlier for cell, run in d.runs.items()}
    if job.kind == "answer":
        return answer_cells(done, order, earlier, runs, work, progress)
    if job.kind == "evaluate":
        return evaluate_cells(done, order, choices, runs, work, progress)
    return train_cells(done, order, choices, work, progress)
