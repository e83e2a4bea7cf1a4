"""What an entry holds besides submission.yaml: results/manifest.json, runs and evaluations; read as data, never run."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from em_bench.board.intake import listing
from em_bench.board.submission import Submission, read_submission
from em_bench.errors import UserError
from em_bench.evaluation_folder import EVALUATIONS, VERDICTS, EvaluationFolder
from em_bench.files import read_record
from em_bench.records import (
    Choice,
    Machine,
    Record,
    Response,
    ResponsesHeader,
    RunRecord,
    ScoreRecord,
    Sha256,
    SpectrumCurve,
    StepRecord,
    Verdict,
    VerdictsHeader,
)
from em_bench.run_folder import RUNS, RunFolder

FOLDER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
RESULTS, MANIFEST, README = "results", "manifest.json", "README.md"


class EntryCell(Record):
    """One trained and evaluated adapter of an entry."""

    model: str
    dataset: str
    seed: int = Field(ge=0)
    run_id: str = Field(pattern=FOLDER)
    matched_step: int | None = Field(ge=1, description="first checkpoint that reaches the target; None: never reached")
    matched: str | None = Field(pattern=FOLDER, description="its folder under evaluations/")
    final: str = Field(pattern=FOLDER, description="folder under evaluations/ of the end of training")
    spectrum: SpectrumCurve | None = Field(default=None, description="singular values of the final adapter")


class Manifest(Record):
    """results/manifest.json: what was made under which rules, and the hash of every file beside it."""

    schema_version: Literal["em_bench.entry/1"] = "em_bench.entry/1"
    name: str
    benchmark: str
    tier: Literal["organism", "small", "full"]
    rules_sha256: Sha256 = Field(description="of the tier's rules")
    submission_sha256: Sha256 = Field(description="of submission.yaml")
    code_sha256: Sha256 | None = Field(default=None, description="of optimiser.py")
    readme_sha256: Sha256 | None = Field(default=None, exclude_if=lambda v: v is None, description="of README.md")
    choices: list[Choice] = Field(description="learning rate and lambda, with the losses that they were chosen by")
    tuning: list[Annotated[str, Field(pattern=FOLDER)]] = Field(description="ids of the runs that were candidates")
    cells: list[EntryCell]
    missing: dict[str, str] = Field(default_factory=dict, description="MODEL/DATASET/SEED -> why it has no result")
    files: dict[str, Sha256] = Field(description="path under results/ -> sha256, of every file but this one")
    machine: Machine
    created: str


class EntryEvaluation(NamedTuple):
    """One folder under evaluations/. `verdicts` holds each run of the judge; the first is the one that is scored."""

    header: ResponsesHeader
    responses: list[Response]
    verdicts: list[tuple[VerdictsHeader, list[Verdict]]]
    score: ScoreRecord


class Entry:
    """An entry's folder, listed safely; its parts are read when asked for. Every reader raises UserError."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.files = listing(self.folder)
        self.submission: Submission = read_submission(self.folder)
        self._logs: dict[str, list[StepRecord]] = {}
        self._evaluations: dict[str, EntryEvaluation] = {}

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
        return {i: RunFolder(self.results / RUNS / i).record() for i in ids}

    def log(self, run_id: str) -> list[StepRecord]:
        """train.jsonl of a run."""
        if run_id not in self._logs:
            self._logs[run_id] = RunFolder(self.results / RUNS / run_id).log()
        return self._logs[run_id]

    def evaluation(self, name: str) -> EntryEvaluation:
        """One evaluation with every run of its judge (verdicts.jsonl, verdicts-2.jsonl, ...)."""
        if name not in self._evaluations:
            at = EvaluationFolder(self.results / EVALUATIONS / name)
            verdicts = [at.verdicts(run) for run in range(1, 1 + len(self.verdict_files(name)))]
            self._evaluations[name] = EntryEvaluation(*at.responses(), verdicts, at.score())
        return self._evaluations[name]

    def evaluations(self) -> Iterator[tuple[str, EntryEvaluation]]:
        """Every evaluation that a cell names, once."""
        names = dict.fromkeys(n for c in self.manifest.cells for n in (c.matched, c.final) if n)
        return ((n, self.evaluation(n)) for n in names)

    def verdict_files(self, name: str) -> list[str]:
        """Names of the runs of the judge, the scored one first."""
        prefix = Path(RESULTS, EVALUATIONS, name)
        again = sorted(p.name for p in self.files if p.parent == prefix and p.name.startswith("verdicts-"))
        return [VERDICTS, *again]
