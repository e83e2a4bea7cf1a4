"""What an entry holds besides submission.yaml: results/manifest.json and what `em_bench.board.packed` writes; read as data, never run."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from em_bench.board.intake import listing
from em_bench.board.packed import EntryEvaluation, Packed
from em_bench.board.submission import Submission, read_submission
from em_bench.errors import UserError
from em_bench.files import read_record
from em_bench.line import Line
from em_bench.records import Choice, Machine, Record, RunRecord, Sha256, SpectrumCurve, StepRecord

__all__ = ["Entry", "EntryCell", "EntryEvaluation", "Manifest"]
FOLDER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
RESULTS, MANIFEST, README = "results", "manifest.json", "README.md"


class EntryCell(Record):
    """One trained and evaluated adapter of an entry."""

    model: Line
    dataset: Line
    seed: int = Field(ge=0)
    run_id: str = Field(pattern=FOLDER)
    evaluated: dict[Annotated[int, Field(ge=1)], Annotated[str, Field(pattern=FOLDER)]] = Field(
        description="step -> its evaluation: on both sides of the first crossing of each loss, and at the end"
    )
    spectrum: SpectrumCurve | None = Field(default=None, description="singular values of the final adapter")


class Manifest(Record):
    """results/manifest.json: what was made under which rules, and the hash of every file beside it."""

    schema_version: Literal["em_bench.entry/2"] = "em_bench.entry/2"
    name: Line
    benchmark: Line
    tier: Literal["organism", "small", "full"]
    rules_sha256: Sha256 = Field(description="of the tier's rules")
    submission_sha256: Sha256 = Field(description="of submission.yaml")
    code_sha256: Sha256 | None = Field(default=None, description="of optimiser.py")
    readme_sha256: Sha256 | None = Field(default=None, exclude_if=lambda v: v is None, description="of README.md")
    choices: list[Choice] = Field(description="learning rate and lambda, with the losses that they were chosen by")
    tuning: list[Annotated[str, Field(pattern=FOLDER)]] = Field(description="ids of the runs that were candidates")
    cells: list[EntryCell]
    missing: dict[Line, Line] = Field(default_factory=dict, description="MODEL/DATASET/SEED -> why it has no result")
    files: dict[Line, Sha256] = Field(description="path under results/ -> sha256, of every file but this one")
    machine: Machine
    created: Line

    @property
    def evaluations(self) -> dict[str, None]:
        """The name of every evaluation, once, in order."""
        return dict.fromkeys(name for cell in self.cells for _, name in sorted(cell.evaluated.items()))


class Entry:
    """An entry's folder, listed safely; its parts are read when asked for. Every reader raises UserError."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.files = listing(self.folder)
        self.submission: Submission = read_submission(self.folder)
        self.packed = Packed(self.results)

    @property
    def results(self) -> Path:
        return self.folder / RESULTS

    @cached_property
    def manifest(self) -> Manifest:
        if Path(RESULTS, MANIFEST) not in self.files:
            raise UserError(
                f"{self.folder.name}/{RESULTS}/{MANIFEST}: no such file; `em-bench submit run {self.folder.name}` makes it"
            )
        return read_record(self.results / MANIFEST, Manifest)

    @cached_property
    def runs(self) -> dict[str, RunRecord]:
        """run id -> record, of cells and of candidates."""
        ids = dict.fromkeys([*(c.run_id for c in self.manifest.cells), *self.manifest.tuning])
        return {i: self.packed.run(i) for i in ids}

    def log(self, run_id: str) -> list[StepRecord]:
        """train.jsonl of a run."""
        return self.packed.log(run_id)

    def evaluation(self, name: str) -> EntryEvaluation:
        """One evaluation with every run of its judge."""
        return self.packed.evaluation(name)

    def adapter(self, run_id: str, step: int | None = None) -> bytes | None:
        """adapter_model.safetensors of a run at a step, or at its end; None where the entry does not hold it."""
        return self.packed.adapters.weights(run_id, step)

    def evaluations(self) -> Iterator[tuple[str, EntryEvaluation]]:
        """Every evaluation that a cell names, once."""
        return ((n, self.evaluation(n)) for n in self.manifest.evaluations)
