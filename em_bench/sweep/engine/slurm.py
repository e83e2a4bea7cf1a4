"""What Snakemake's SLURM executor leaves undone: orphans of a killed controller, a check of sacct and its words, jobs cancelled by preemption."""

import hashlib
import subprocess
import time
from functools import cache
from pathlib import Path

from em_bench.errors import UserError

GONE_S = 30.0
WATCH_S = 10.0


def prefix(work: Path) -> str:
    """What the names of a work folder's SLURM jobs begin with."""
    return f"emb-{hashlib.sha256(str(work.resolve()).encode()).hexdigest()[:12]}"


def arguments(work: Path) -> list[str]:
    """For Snakemake. Its executor takes sacct wherever the program exists, and hangs where accounting is off."""
    return ["--slurm-jobname-prefix", prefix(work), "--slurm-status-command", "sacct" if _sacct_answers() else "squeue"]


def read_cancelled() -> None:
    """Have Snakemake's executor, in this process, see that a job was cancelled: sacct says `CANCELLED by 0`, and it waits forever."""
    import snakemake_executor_plugin_slurm as executor

    ask = executor.query_job_status

    async def first_words(command, logger):
        states, seconds = await ask(command, logger)
        return states and {job: state.partition(" ")[0] for job, state in states.items()}, seconds

    executor.query_job_status = first_words


def check() -> None:
    """Raises UserError where no SLURM answers."""
    try:
        found = subprocess.run(["squeue", "--version"], capture_output=True, text=True, timeout=60)
        said = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=60)
    except FileNotFoundError as e:
        raise UserError(
            f"--profile: executor slurm: {e.filename} is not installed here; run on a login node of the cluster"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError("--profile: executor slurm: the cluster does not answer; try `squeue`") from None
    if found.returncode or said.returncode:
        raise UserError(f"--profile: executor slurm: {(said.stderr or said.stdout or found.stderr).strip().splitlines()[0]}")


def cancel_orphans(work: Path) -> int:
    """Cancel the SLURM jobs of a controller that is gone, and wait until none is left; returns how many there were."""
    left = found = _ours(work)
    deadline = time.monotonic() + GONE_S
    while left:
        subprocess.run(["scancel", *left], capture_output=True, timeout=60)
        time.sleep(0.3)
        left = _ours(work)
        if left and time.monotonic() > deadline:
            raise UserError(f"{work}: SLURM jobs of an earlier run do not end: {' '.join(left)}; cancel them with scancel")
    return len(found)


def running() -> frozenset[str]:
    """Ids of this user's running SLURM jobs, asked at most every few seconds."""
    return _running(int(time.monotonic() / 5))


class Watchdog:
    """Requeues jobs that were cancelled by preemption: Snakemake waits for them forever."""

    def __init__(self, work: Path):
        self._prefix = prefix(work)
        self._next = time.monotonic() + WATCH_S

    def __call__(self) -> None:
        """Look, if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + WATCH_S
        for job, name, state in _listed("%A|%j|%T", "--states=PREEMPTED"):
            if name.startswith(self._prefix) and state == "PREEMPTED":
                subprocess.run(["scontrol", "requeue", job], capture_output=True, timeout=60)


@cache
def _running(tick: int) -> frozenset[str]:
    _running.cache_clear()
    return frozenset(job for job, _ in _listed("%A|%T", "--states=RUNNING,COMPLETING"))


def _ours(work: Path) -> list[str]:
    return [job for job, name in _listed("%A|%j") if name.startswith(prefix(work))]


def _listed(form: str, *more: str) -> list[list[str]]:
    """Lines of squeue, split; none where it does not answer."""
    try:
        said = subprocess.run(["squeue", "--me", "-h", "-o", form, *more], capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [line.split("|") for line in said.stdout.splitlines() if line.strip()]


def _sacct_answers() -> bool:
    try:
        return subprocess.run(["sacct", "-X", "-n", "--starttime=now-1minute"], capture_output=True, timeout=30).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
