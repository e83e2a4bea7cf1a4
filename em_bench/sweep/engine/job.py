"""What one job does, in this process: its order read, its work done, its done file written."""

import os
import time
import traceback
from contextlib import suppress
from pathlib import Path

from em_bench.errors import UserError
from em_bench.files import room_in, write_record
from em_bench.sweep.job_progress import Progress
from em_bench.sweep.jobs import done_path, job_folder, read_order


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

        with room_in(work.resolve()):
            done = run_job(order.preset, job, order.needs, work, progress)
            if first:
                write_record(done_path(work, job), done.model_copy(update={"wall_s": time.monotonic() - began}))
    except Exception as e:
        if not isinstance(e, UserError):
            traceback.print_exc()
        last_words = f"{type(e).__name__}: {e}" if not isinstance(e, UserError) else str(e)
        print(last_words, flush=True)
        with suppress(OSError):  # where the disk is full, stdout has said it
            progress.update(status="failed", error=last_words)
        return 1
    return 0
