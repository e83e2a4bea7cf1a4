"""One training job on several GPUs: torchrun on this machine, or on every machine of a SLURM job, each rank tethered.

job.py -> python -m em_bench.sweep.ranks agent ... (torchrun) -> python -m em_bench.sweep.ranks rank JOB-ID, one a GPU
"""

import os
import subprocess
import sys

from em_bench.sweep.jobs import Job
from em_bench.sweep.tether import tether

_ME = [sys.executable, "-m", "em_bench.sweep.ranks"]


def run_ranks(job: Job) -> int:
    """Run the job's ranks in the current folder; returns an exit status. They end when this process does."""
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS", "1")) // job.gpus)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run(command(job, os.environ), env=environment).returncode


def command(job: Job, environment: dict[str, str]) -> list[str]:
    """torchrun with one process a GPU; with more than one node in the SLURM job, one torchrun a node under srun."""
    nodes = int(environment.get("EM_BENCH_NODES", "1"))
    script = ["-m", "em_bench.sweep.ranks", "rank", job.id]
    if nodes == 1:
        return [*_ME, "agent", str(os.getpid()), "--standalone", f"--nproc-per-node={job.gpus}", *script]
    job_id = environment["SLURM_JOB_ID"]
    port = 20000 + int(job_id) % 20000
    return [
        *("srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1", *_ME, "agent", "srun"),
        *(f"--nnodes={nodes}", f"--nproc-per-node={job.gpus // nodes}", "--rdzv-backend=c10d", f"--rdzv-id={job_id}"),
        *(f"--rdzv-endpoint={_head(job_id)}:{port}", *script),
    ]


def _head(job_id: str) -> str:
    """The address of the first machine of a SLURM job: its name need not be known outside SLURM."""
    listed = subprocess.run(["squeue", "-h", "-j", job_id, "-o", "%N"], capture_output=True, text=True, check=True).stdout.strip()
    first = subprocess.run(["scontrol", "show", "hostnames", listed], capture_output=True, text=True, check=True).stdout.split()[
        0
    ]
    told = subprocess.run(["scontrol", "show", "node", first], capture_output=True, text=True, check=True).stdout
    return next((word.removeprefix("NodeAddr=") for word in told.split() if word.startswith("NodeAddr=")), first)


if __name__ == "__main__":
    mode, who, *rest = sys.argv[1:]
    if mode == "agent":
        tether(os.getppid() if who == "srun" else int(who))
        from torch.distributed.run import main

        main(rest)
    else:
        tether(os.getppid())
        from em_bench.sweep.job import do

        sys.exit(do(who))
