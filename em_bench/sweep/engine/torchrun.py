"""A job where it belongs: in this process, or on several GPUs by torchrun on this machine or on every machine of a SLURM job.

job_process.py -> python -m em_bench.sweep.engine.torchrun agent ... (torchrun) -> python -m em_bench.sweep.engine.torchrun rank JOB-ID, one a GPU
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from em_bench.parent_death import tether
from em_bench.sweep.engine.job import do
from em_bench.sweep.job_progress import Progress
from em_bench.sweep.jobs import Job, job_folder, read_order, read_state

_ME = [sys.executable, "-m", "em_bench.sweep.engine.torchrun"]
_RANK = ["-m", "em_bench.sweep.engine.torchrun", "rank"]


def run_here(job_id: str, run_ranks: Callable[[Job], int] | None = None) -> int:
    """Run a job of the current folder to its done file; returns the exit status. Its last words go to state.json and stdout.

    `run_ranks` runs one that takes several processes; None: a torchrun of its own does.
    """
    work = Path()
    job = read_order(work, job_id).job
    folder = job_folder(work, job)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        # A killed predecessor may need a moment to be gone; nobody else may make this job at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if job.several_processes:
            code = (run_ranks or _run_ranks)(job)
            state = read_state(work, job)
            if code and (state is None or state.status == "running"):
                last_words = "a process of the run ended"
                Progress(folder / "state.json", job.key, len(job.cells)).update(status="failed", error=last_words)
            return code
        return do(job_id)


def _run_ranks(job: Job) -> int:
    """Run the job's ranks in the current folder; returns an exit status. They end when this process does."""
    return subprocess.run(command(job, os.environ, [*_RANK, job.id]), env=rank_environment(job)).returncode


def rank_environment(job: Job) -> dict[str, str]:
    """This process's, with each rank's share of its threads."""
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS", "1")) // job.gpus)
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def command(job: Job, environment: Mapping[str, str], script: Sequence[str]) -> list[str]:
    """torchrun with one process of `script` a GPU; with more than one node in the SLURM job, one torchrun a node under srun."""
    nodes = int(environment.get("EM_BENCH_NODES", "1"))
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
        sys.exit(do(who))
