"""A run folder and the names in it.

run.json              the run's record, written last: a folder that has it is complete
train.jsonl           a line a step
adapter/              the adapter at the end, in PEFT's own format
checkpoints/<step>/   the adapter at earlier steps
"""

from collections.abc import Iterator
from pathlib import Path

from em_bench.files import read_jsonl, read_record
from em_bench.records import RunRecord, StepRecord

RUNS = "runs"  # the folder of run folders
RECORD, LOG, ADAPTER, CHECKPOINTS = "run.json", "train.jsonl", "adapter", "checkpoints"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # of a PEFT adapter
RESCALE = "rescale.json"  # beside these: the record of an adapter that is another one times a scale
LIGHT = (RECORD, LOG, f"{ADAPTER}/{WEIGHTS}")  # of a run, all that an entry holds
WHOLE = (RECORD, LOG, f"{ADAPTER}/*", f"{CHECKPOINTS}/*/*")


class RunFolder:
    """Paths and records of one run."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.record_file, self.log_file = self.path / RECORD, self.path / LOG

    @classmethod
    def below(cls, top: Path) -> Iterator["RunFolder"]:
        """Every complete run at or below `top`, in order."""
        return (cls(p.parent) for p in sorted(Path(top).rglob(RECORD)))

    @classmethod
    def of_adapter(cls, adapter: Path) -> tuple["RunFolder", int | None] | None:
        """The complete run that an adapter's folder lies in, and its step (None at the end); None where it lies in none."""
        at = Path(adapter).resolve()
        if at.name == ADAPTER:
            run, step = cls(at.parent), None
        elif at.parent.name == CHECKPOINTS and at.name.isdecimal():
            run, step = cls(at.parents[1]), int(at.name)
        else:
            return None
        return (run, step) if run.complete else None

    @property
    def complete(self) -> bool:
        return self.record_file.is_file()

    def record(self) -> RunRecord:
        """run.json. Raises UserError where it is missing or wrong."""
        return read_record(self.record_file, RunRecord)

    def log(self) -> list[StepRecord]:
        """train.jsonl. Raises UserError naming the line that is wrong."""
        first, rest = read_jsonl(self.log_file, StepRecord, StepRecord)
        return [first, *rest]

    def adapter(self, step: int | None = None) -> Path:
        """The adapter's folder: at the end, or at a step."""
        return self.path / ADAPTER if step is None else self.path / CHECKPOINTS / str(step)

    def weights(self, step: int | None = None) -> Path:
        """The adapter's tensors: at the end, or at a step."""
        return self.adapter(step) / WEIGHTS

    def checkpoint_steps(self) -> list[int]:
        """The steps whose adapters are on disk."""
        return sorted(int(p.name) for p in (self.path / CHECKPOINTS).glob("*") if p.name.isdecimal())
