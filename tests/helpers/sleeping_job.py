"""A job that sleeps instead of training, for tests of the engine with real processes: JOB sleeps S seconds a cell.

It leases GPUs as a real job does. It notes every cell that it does in WORK/work.log, and what it finds itself in in
WORK/jobs/JOB/tries.jsonl, a line a try. Jobs named in WORK/broken.txt fail; those in WORK/shot.txt are killed, as for their memory.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

from em_bench.files import write_record
from em_bench.parent_death import tether
from em_bench.sweep.engine.gpu_lease import own_gpus
from em_bench.sweep.job_progress import Progress
from em_bench.sweep.jobs import JobDone, done_path, job_folder, read_order

seconds, work, job_id, parent = float(sys.argv[1]), Path(), sys.argv[2], int(sys.argv[3])
tether(parent)
job = read_order(work, job_id).job
gpus = own_gpus(job.gpus)
gpus.__enter__()
names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "CAME_FROM", "WRAPPED")
with open(job_folder(work, job) / "tries.jsonl", "a") as tries:
    tries.write(json.dumps({"began": time.monotonic(), **{n: os.environ.get(n) for n in names}}) + "\n")
progress = Progress(job_folder(work, job) / "state.json", job.key, len(job.cells))
print(f"this is {job_id}", flush=True)


def named(file: str) -> bool:
    return (work / file).exists() and job_id in (work / file).read_text().split()


if named("broken.txt"):
    print("the data of this job is broken", flush=True)
    progress.update(status="failed", error="the data of this job is broken")
    sys.exit(1)
if named("shot.txt"):
    os.kill(os.getpid(), signal.SIGKILL)
for cell in job.cells:
    made = work / "cells" / f"{job_id}.{cell.seed}"
    if made.exists():
        continue
    progress.begin(cell.name)
    time.sleep(seconds)
    made.parent.mkdir(exist_ok=True)
    with open(work / "work.log", "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.write(f"{job_id} {cell.seed} {os.getpid()}\n")
        made.touch()
    progress.end()
write_record(done_path(work, job), JobDone(job=job.id, key=job.key, wall_s=0.0))
