"""One job, as a process in the work folder: `python -m em_bench.sweep.engine.job_process JOB-ID [PARENT-PID]`.

Snakemake starts it; by hand it serves to debug, and then needs no parent.
"""

import os
import sys
from pathlib import Path

from em_bench.sweep.engine.forkserver import ask
from em_bench.sweep.engine.gpu_lease import own_gpus
from em_bench.sweep.engine.parent_death import tether
from em_bench.sweep.engine.torchrun import run_here
from em_bench.sweep.jobs import Job, read_order


def main(job_id: str) -> int:
    """Run a job, on GPUs of its own where it needs some, in a warm process where there is one for it."""
    job = read_order(Path(), job_id).job
    with own_gpus(job.gpus):
        code = ask(job_id) if _fits_forkserver(job) else None
        return run_here(job_id) if code is None else code


def _fits_forkserver(job: Job) -> bool:
    return job.threads == 1 and not job.gpus


if __name__ == "__main__":
    if len(sys.argv) > 2:
        tether(int(sys.argv[2]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported
    sys.exit(main(sys.argv[1]))
