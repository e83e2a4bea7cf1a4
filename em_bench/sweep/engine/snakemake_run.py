"""Runs a plan: Snakemake as a tethered child, the jobs' own state files as the progress.

Five things Snakemake does not do by itself, found by killing it: its lock survives kill -9 (our flock, handed down, is held
as long as it or we live); its jobs survive it (every process is tethered to its parent); a job that was marked
incomplete would run again although its one output is written atomically (--ignore-incomplete); a failed job keeps the
final rule from running (the report is ours); and retries multiply (only the command line's).
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

from em_bench.errors import UserError
from em_bench.files import write_record, write_text
from em_bench.sweep.engine import controller_lock, gpu_lease, slurm
from em_bench.sweep.engine.profile import ExecutionProfile
from em_bench.sweep.engine.status import status
from em_bench.sweep.job_progress import EXECUTOR
from em_bench.sweep.jobs import Inputs, Job, Plan, done_path, job_folder, write_order

# What the Snakefile runs in the work folder, with a job's id and Snakemake's process id.
JOB_COMMAND = (sys.executable, "-m", "em_bench.sweep.engine.job_process")
POLL_S = 0.3
TAIL_BYTES = 1 << 16  # of a log that are read
SNAKEFILE = Path(__file__).with_name("Snakefile")
LOG = "snakemake.log"
SETTINGS = "engine.json"


def run_plan(
    plan: Plan,
    work: Path,
    lock_fd: int,
    *,
    profile: ExecutionProfile,
    inputs: Inputs = Inputs(),
    on_poll: Callable[[], None] = lambda: None,
    job_command: Sequence[str] = JOB_COMMAND,
    only: str | None = None,
) -> list[Job]:
    """Run all jobs of the plan but its report; returns those that are not done at the end.

    Done jobs are not run again; where all are done, nothing is started. `only` names one job, which is run with what it
    needs. `inputs` are what jobs are told that they will read. `on_poll` is called about three times a second, or less often where it takes long. Raises UserError where Snakemake starts no job.
    """
    jobs = wanted(plan, only)
    todo = [j for j in jobs if not done_path(work, j).exists()]
    write_record(work / "plan.json", plan)
    if todo:
        watch = _no_watch
        if profile.executor == "slurm":
            slurm.cancel_orphans(work)
            watch = slurm.Watchdog(work)
        write_text(work / SETTINGS, json.dumps(_settings(profile, job_command), indent=1))
        for job in todo:
            job_folder(work, job).mkdir(parents=True, exist_ok=True)
            write_order(work, plan, job, inputs)
            (job_folder(work, job) / "state.json").unlink(missing_ok=True)
        # Forking a process that holds torch is safe on Linux alone.
        fork = profile.local and job_command is JOB_COMMAND and sys.platform == "linux"
        forkserver = [sys.executable, "-m", "em_bench.sweep.engine.forkserver"] if fork else None
        command = _snakemake(work, profile, [done_path(Path(), j) for j in jobs] if only else [])
        try:
            with _child(forkserver, work, lock_fd, profile), _child(command, work, lock_fd, profile) as snakemake:
                while snakemake.poll() is None:
                    began = time.monotonic()
                    on_poll()
                    watch()
                    # Looking at thousands of jobs takes longer: it never gets more than a tenth of the time.
                    time.sleep(max(POLL_S, 9 * (time.monotonic() - began)))
        finally:
            if profile.executor == "slurm":
                slurm.cancel_orphans(work)
        on_poll()
    left = [j for j in todo if not done_path(work, j).exists()]
    if left and not any(status(work, j)[1] for j in left):
        raise UserError(f"Snakemake started no job: {_complaint(work / LOG)}; all that it said is in {work / LOG}")
    return left


def _no_watch() -> None:
    pass


def wanted(plan: Plan, only: str | None = None) -> list[Job]:
    """The jobs to run: all, or one with everything that it needs."""
    jobs = {j.id: j for j in plan.jobs if j.kind != "report"}
    if only is None:
        return list(jobs.values())
    if only not in jobs:
        raise UserError(f"--only {only}: no such job; `em-bench plan --jobs` lists them")
    found, ahead = set(), [only]
    while ahead:
        job_id = ahead.pop()
        if job_id not in found:
            found.add(job_id)
            ahead += jobs[job_id].needs
    return [j for j in jobs.values() if j.id in found]


def check(todo: Sequence[Job], profile: ExecutionProfile) -> None:
    """Raises UserError for what would fail later: too few GPUs, no cluster."""
    if profile.executor == "slurm":
        slurm.check()
    largest = max(
        (j for j in todo if profile.local or j.kind not in ("answer", "evaluate")), key=lambda j: j.gpus, default=todo[0]
    )
    if profile.local and largest.gpus > len(profile.gpus):
        raise UserError(
            f"{largest.id} needs {largest.gpus} GPU{'s' * (largest.gpus > 1)} and this machine gives {len(profile.gpus)}; "
            "take a machine that has them, set the preset's `gpus`, or go to a cluster with --profile slurm"
        )
    if profile.local and largest.gpus > 1 and any(d.startswith("MIG") for d in profile.gpus):
        raise UserError(
            f"{largest.id} needs {largest.gpus} GPUs, and instances of a split GPU (MIG) do not work together; "
            "switch MIG off, or set the preset's `gpus`"
        )
    spread = profile.surroundings.gpus_per_node
    if not profile.local and largest.gpus > spread and largest.gpus % spread:
        raise UserError(
            f"{largest.id} needs {largest.gpus} GPUs, which machines of {spread} do not share evenly; set the preset's `gpus`"
        )


def _settings(profile: ExecutionProfile, job_command: Sequence[str]) -> dict:
    """engine.json, which the Snakefile reads."""
    around = profile.surroundings
    return {
        "command": " ".join(filter(None, (around.wrap.strip(), shlex.join(job_command)))),
        "before": f"{around.before.strip()}\n" if around.before.strip() else "",
        # Threads of its own for every GPU; a cluster's profile says how many with set-threads or cpus_per_gpu.
        "cpus_per_gpu": max(1, profile.cores // max(1, len(profile.gpus))) if profile.local else around.cpus_per_gpu,
        "gpus_per_node": 0 if profile.local else around.gpus_per_node,
    }


def _snakemake(work: Path, profile: ExecutionProfile, targets: Sequence[Path]) -> list[str]:
    arguments = ["--snakefile", str(SNAKEFILE), "--directory", str(work.resolve())]
    arguments += ["--nolock", "--ignore-incomplete", "--keep-going", "--retries", "1", "--scheduler", "greedy"]
    # The outputs' names hold the digests of what they depend on: no other trigger is needed.
    arguments += ["--rerun-triggers", "input", "--drop-metadata"]
    if profile.folder:
        arguments += ["--profile", str(profile.folder)]
    if profile.local:  # a GPU job occupies at least a thread
        arguments += ["--executor", "local", "--cores", str(max(profile.cores, len(profile.gpus)))]
        arguments += ["--resources", f"gpu={len(profile.gpus)}"]
    else:
        arguments += ["--jobs", str(profile.at_once), "--local-cores", str(profile.cores)]
    if profile.executor == "slurm":
        arguments += slurm.arguments(work)
    return [
        sys.executable,
        "-m",
        "em_bench.sweep.engine.tethered_snakemake",
        *arguments,
        *(["--", *map(str, targets)] if targets else []),
    ]


def _complaint(log: Path) -> str:
    """The line of Snakemake's log that says what is wrong, if one does."""
    lines = [line.strip() for line in tail(log, 40).splitlines()]
    return next((line for line in reversed(lines) if "rror" in line and not line.startswith("File")), lines[-1])


@contextmanager
def _child(command: list[str] | None, work: Path, lock_fd: int, profile: ExecutionProfile):
    """A process tethered to this one (its first argument after the module is our id), ended with the block."""
    if command is None:
        yield None
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {gpu_lease.DEVICES: ",".join(profile.gpus), EXECUTOR: profile.executor}
    command = [*command[:3], str(os.getpid()), *command[3:]]
    with open(work / LOG, "ab") as log:
        # Its own session: Ctrl-C reaches us alone, and we end it in order.
        child = subprocess.Popen(
            command, cwd=work, env=environment, stdout=log, stderr=log, pass_fds=[lock_fd], start_new_session=True
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
        child.wait()


def start_over(work: Path) -> None:
    """Empty a work folder. Raises UserError for a folder that is not one: somebody's files may be in it."""
    found = [p for p in work.iterdir() if p.name != controller_lock.FILE]
    if found and not (work / "plan.json").exists():
        raise UserError(f"--fresh {work}: not a work folder of em-bench (it holds no plan.json); name another --workdir")
    for path in found:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log that say something, read from its end: a log may have any size."""
    if not path.exists():
        return "(no log)"
    with open(path, "rb") as log:
        log.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = log.read(TAIL_BYTES).decode("utf-8", "replace")
    said = [line for line in text.splitlines() if line.strip()]
    return "\n".join(said[-lines:])
