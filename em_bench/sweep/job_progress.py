"""What a running job tells: state.json, rewritten at most twice a second."""

import json
import os
import time
from pathlib import Path

from em_bench.machine import utc_now
from em_bench.sweep.jobs import JobState

EVERY_S = 0.5
EXECUTOR = "EM_BENCH_EXECUTOR"  # set by the controller: where it sent its jobs


class Progress:
    """Writes a job's state.json. A reader sees the old or the new text, never half of it."""

    def __init__(self, path: Path | None, key: str, cells: int):
        """None as `path`: a process that does not speak for its job."""
        self._path = path
        on = os.environ.get("SLURM_JOB_ID") if os.environ.get(EXECUTOR) == "slurm" else None
        self._state = JobState(status="running", key=key, pid=os.getpid(), slurm_job=on, cells=cells, started=utc_now())
        self._written = 0.0
        self.update()

    def update(self, **changes) -> None:
        """Change fields of the state; small changes that follow each other fast are written together."""
        urgent = bool(changes.keys() - {"loss"}) or not self._written
        self._state = self._state.model_copy(update=changes)
        if self._path and (urgent or time.monotonic() - self._written > EVERY_S):
            self._written = time.monotonic()
            # Not files.write_record: no fsync for a file that nothing depends on.
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(self._state.model_dump(mode="json")))
            new.replace(self._path)

    def begin(self, cell: str) -> None:
        """A cell begins."""
        self.update(doing=cell, loss=None)

    def end(self) -> None:
        """The cell has ended."""
        self.update(cells_done=self._state.cells_done + 1)
