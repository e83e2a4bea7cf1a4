"""One job, as a process in the work folder: `python -m em_bench.sweep.engine.job_process JOB-ID [PARENT-PID]`.

Snakemake starts it; by hand it serves to debug, and then needs no parent.
"""

import os
import sys
from pathlib import Path

from em_bench.parent_death import tether
from em_bench.sweep.engine.forkserver import Request, ask
from em_bench.sweep.engine.gpu_lease import own_gpus
from em_bench.sweep.engine.torchrun import run_here
from em_bench.sweep.jobs import Job, read_order


def main(job_id: str) -> int:
    """Run a job: in a warm process, or on a worker that has its base on GPUs, where there is one for it; else in this process."""
    job = read_order(Path(), job_id).job
    code = ask(_request(job)) if job.gpus or job.threads == 1 else None
    if code is not None:
        return code
    with own_gpus(job.gpus):
        return run_here(job_id)


def _request(job: Job) -> Request:
    kind = "ranks" if job.several_processes else "one process"
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    return Request(job=job.id, worker=f"{job.model}, {job.gpus}, {kind}" if job.gpus else None, gpus=job.gpus, threads=threads)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        tether(int(sys.argv[2]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported
    sys.exit(main(sys.argv[1]))
