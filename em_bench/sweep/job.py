"""One job, as a process in the work folder: `python -m em_bench.sweep.job JOB-ID [PARENT-PID]`.

Snakemake starts it; by hand it serves to debug, and then needs no parent.
"""

import fcntl
import os
import sys
import time
import traceback
from pathlib import Path

from em_bench.errors import UserError
from em_bench.files import write_record
from em_bench.sweep import warm
from em_bench.sweep.jobs import Job, done_path, job_folder, read_order, read_state
from em_bench.sweep.lease import own_gpus
from em_bench.sweep.progress import Progress
from em_bench.sweep.tether import tether


def run_here(job_id: str) -> int:
    """Run a job of the current folder to its done file; returns the exit status. Its last words go to state.json and stdout."""
    work = Path()
    job = read_order(work, job_id).job
    folder = job_folder(work, job)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        # A killed predecessor may need a moment to be gone; nobody else may make this job at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if job.gpus > 1 and job.kind != "evaluate":
            from em_bench.sweep.ranks import run_ranks

            code = run_ranks(job)
            state = read_state(work, job)
            if code and (state is None or state.status == "running"):
                last_words = "a process of the run ended"
                Progress(folder / "state.json", job.key, len(job.cells)).update(status="failed", error=last_words)
            return code
        return do(job_id)


def do(job_id: str) -> int:
    """The job itself, on this process and its peers if it has any; the first one speaks and writes."""
    work, first = Path(), int(os.environ.get("RANK", "0")) == 0
    order = read_order(work, job_id)
    job = order.job
    folder = job_folder(work, job)
    began = time.monotonic()
    progress = Progress(folder / "state.json" if first else None, job.key, len(job.cells))
    try:
        from em_bench.sweep.work import run_job

        done = run_job(order.preset, job, order.needs, work, progress)
    except Exception as e:
        if not isinstance(e, UserError):
            traceback.print_exc()
        last_words = f"{type(e).__name__}: {e}" if not isinstance(e, UserError) else str(e)
        print(last_words, flush=True)
        progress.update(status="failed", error=last_words)
        return 1
    if first:
        write_record(done_path(work, job), done.model_copy(update={"wall_s": time.monotonic() - began}))
    return 0


def main(job_id: str) -> int:
    """Run a job, on GPUs of its own where it needs some, in a warm process where there is one for it."""
    job = read_order(Path(), job_id).job
    with own_gpus(job.gpus):
        code = warm.ask(job_id) if _fits_warm(job) else None
        return run_here(job_id) if code is None else code


def _fits_warm(job: Job) -> bool:
    return job.threads == 1 and not job.gpus


if __name__ == "__main__":
    if len(sys.argv) > 2:
        tether(int(sys.argv[2]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported
    sys.exit(main(sys.argv[1]))
