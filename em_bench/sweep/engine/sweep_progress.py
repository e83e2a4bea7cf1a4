"""Where every job of a plan stands while it runs, and how long the rest will take."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from em_bench.sweep.engine.profile import ExecutionProfile
from em_bench.sweep.engine.status import Status, status
from em_bench.sweep.jobs import Job, JobState, read_done
from em_bench.sweep.makespan import makespan

UNKNOWN_S = 60.0  # a job without an estimate
BELIEVED_S = 30.0  # of work that the estimates count for before they are corrected
EVERY_S = 2.0  # how often the rest is scheduled anew


class SweepProgress:
    """The jobs that are to be done, as their own files tell of them."""

    def __init__(self, name: str, jobs: Sequence[Job], work: Path, profile: ExecutionProfile):
        self.name, self.jobs, self.work, self.profile = name, list(jobs), work, profile
        self.began = time.monotonic()
        self.at: dict[str, tuple[Status, JobState | None]] = {}
        self._before: set[str] = set()  # done when we came: what they took says nothing of this machine today
        self._took: dict[str, float] = {}
        self._left, self._asked = 0.0, 0.0
        self.refresh()

    def refresh(self) -> None:
        """Read the states of all jobs that are not known to be done."""
        first = not self.at
        for job in self.jobs:
            if self.at.get(job.id, ("waiting",))[0] != "done":
                self.at[job.id] = status(self.work, job)
                if self.at[job.id][0] == "done":
                    if first:
                        self._before.add(job.id)
                    elif done := read_done(self.work, job):
                        self._took[job.id] = done.wall_s

    def count(self, wanted: Status) -> int:
        """How many jobs stand so."""
        return sum(s == wanted for s, _ in self.at.values())

    def share_done(self) -> float:
        """Of all estimated seconds, 0 to 1."""
        total = sum(map(_estimate, self.jobs))
        return sum(_estimate(j) if self.at[j.id][0] == "done" else self._expected(j) for j in self.jobs) / total if total else 1.0

    def seconds_left(self) -> float:
        """What is left, on what there is, as a scheduler would do it; by the estimates, corrected by how they did so far."""
        if not self._asked or time.monotonic() - self._asked > EVERY_S:
            self._left, self._asked = self._schedule(), time.monotonic()
        return max(self._left - (time.monotonic() - self._asked), 0.0)

    def _schedule(self) -> float:
        left = [j for j in self.jobs if self.at[j.id][0] in ("waiting", "running")]
        ids, spread = {j.id for j in left}, not self.profile.local
        rest = [
            j.model_copy(
                update={
                    "needs": tuple(n for n in j.needs if n in ids),  # what a failed job holds up is counted, in hope
                    "estimate_s": (_estimate(j) - self._expected(j)) * self._pace(),
                    "gpus": 0 if spread else j.gpus,  # a cluster has them or has them not: its queue is not foreseen
                }
            )
            for j in left
        ]
        return makespan(rest, self.profile.at_once if spread else self.profile.cores, len(self.profile.gpus)) or 0.0

    def _pace(self) -> float:
        """Seconds that an estimated second takes, within a factor of five."""
        took, expected = BELIEVED_S, BELIEVED_S
        for job in self.jobs:
            if job.id in self._took:
                took, expected = took + self._took[job.id], expected + _estimate(job)
            elif elapsed := self.elapsed(job):
                took, expected = took + elapsed, expected + self._expected(job)
        return min(max(took / expected, 0.2), 5.0)

    def _expected(self, job: Job) -> float:
        """Of a running job, the estimated seconds that lie behind it: between the cells that are done and the next."""
        state, elapsed = self.at[job.id][1], self.elapsed(job)
        if not elapsed or state is None:
            return 0.0
        cell = _estimate(job) / max(state.cells, 1)
        return min(max(elapsed, state.cells_done * cell), (state.cells_done + 1) * cell, _estimate(job))

    def elapsed(self, job: Job) -> float:
        """Seconds since a running job began; 0 for any other."""
        standing, state = self.at[job.id]
        if standing != "running" or state is None:
            return 0.0
        return max((datetime.now(UTC) - datetime.fromisoformat(state.started)).total_seconds(), 0.0)


def _estimate(job: Job) -> float:
    return UNKNOWN_S if job.estimate_s is None else job.estimate_s
