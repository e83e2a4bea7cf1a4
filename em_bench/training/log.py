"""train.jsonl while it grows: appended by one process, cut back to the state that a run resumes from."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from em_bench.errors import UserError
from em_bench.records import StepRecord
from em_bench.run_folder import LOG


class Log:
    """A context that takes records. `on_step` is shown every one. On processes other than the first nothing is written."""

    def __init__(self, folder: Path, done: int, writes: bool, on_step: Callable[[StepRecord], None] | None = None):
        self.path, self.writes, self.on_step, self.last = folder / LOG, writes, on_step, None
        if writes:
            lines = _truncated(self.path, done)
            self.last = StepRecord.model_validate_json(lines[-1]) if lines else None

    def __enter__(self) -> "Log":
        self.file = open(self.path, "a", encoding="utf-8") if self.writes else None
        return self

    def __exit__(self, *_) -> None:
        if self.file:
            self.file.close()

    def write(self, record: StepRecord) -> None:
        """Append one record; it is on its way to the disk when this returns."""
        self.last = record
        if self.file:
            self.file.write(json.dumps(record.model_dump(mode="json")) + "\n")
            self.file.flush()
            if self.on_step:
                self.on_step(record)

    def sync(self) -> None:
        """Return when what was written is on the disk: before a state that counts on it."""
        if self.file:
            os.fsync(self.file.fileno())


def _truncated(path: Path, done: int) -> list[str]:
    """Drop the lines of steps that will run again, and a line that a kill cut short; returns what is left.

    Raises UserError where a step that is not run again has no line: a log with a hole would be attested as whole.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    kept = done + 1 if done else 0  # step 0 has a line too
    lines = text.splitlines()[:kept]
    try:
        whole = [StepRecord.model_validate_json(line).step for line in lines] == list(range(kept))
    except ValidationError:
        whole = False
    if not whole:
        raise UserError(
            f"{path}: lacks steps before {done}, from which the run would go on; remove {path.parent} to start it again"
        )
    if path.exists():
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return lines
