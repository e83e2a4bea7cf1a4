"""When a plan's jobs would end: on as many cores and GPUs as there are, or on as many as anyone could want."""

import heapq
from collections.abc import Sequence

from em_bench.errors import UserError
from em_bench.sweep.jobs import Job

URGENCY = {
    kind: i for i, kind in enumerate(("base", "lr", "lambda", "train", "answer", "evaluate", "report"))
}  # as in the Snakefile


def makespan(jobs: Sequence[Job], cores: int, gpus: int = 0) -> float | None:
    """Seconds until all jobs are done, each started when what it needs is done and its GPUs, or a core, are free.

    None where an estimate is missing. Raises UserError for a job that needs more GPUs than there are.
    """
    if any(j.estimate_s is None for j in jobs):
        return None
    for job in jobs:
        if job.gpus > gpus:
            raise UserError(
                f"{job.id} needs {_gpus(job.gpus)} at once, and there {'is' if gpus == 1 else 'are'} {gpus or 'none'}; give --gpus {job.gpus} or more"
            )
    missing = {j.id: len(set(j.needs)) for j in jobs}
    needed_by: dict[str, list[Job]] = {}
    for job in jobs:
        for need in set(job.needs):
            needed_by.setdefault(need, []).append(job)
    order = {j.id: i for i, j in enumerate(jobs)}
    ready = [(URGENCY[j.kind], order[j.id], j) for j in jobs if not missing[j.id]]
    heapq.heapify(ready)
    running: list[tuple[float, int, Job]] = []
    now, free_cores, free_gpus = 0.0, cores, gpus
    while ready or running:
        held = []  # what does not fit now
        while ready and (free_cores or free_gpus):
            urgency, place, job = heapq.heappop(ready)
            if job.gpus <= free_gpus and (job.gpus or free_cores):
                free_gpus -= job.gpus
                free_cores -= not job.gpus
                heapq.heappush(running, (now + (job.estimate_s or 0.0), place, job))
            else:
                held.append((urgency, place, job))
        for item in held:
            heapq.heappush(ready, item)
        now, _, job = heapq.heappop(running)
        free_gpus += job.gpus
        free_cores += not job.gpus
        for other in needed_by.get(job.id, ()):
            missing[other.id] -= 1
            if not missing[other.id]:
                heapq.heappush(ready, (URGENCY[other.kind], order[other.id], other))
    return now


def longest_chain(jobs: Sequence[Job]) -> float:
    """Seconds until all jobs are done where each starts as soon as what it needs is done. Jobs come after what they need."""
    ended: dict[str, float] = {}
    for job in jobs:
        ended[job.id] = max((ended[n] for n in job.needs), default=0.0) + (job.estimate_s or 0.0)
    return max(ended.values(), default=0.0)


def _gpus(n: int) -> str:
    return "1 GPU" if n == 1 else f"{n} GPUs"
