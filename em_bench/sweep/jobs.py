"""Jobs and their traces in a work folder: the plan, a job's state while it runs, and the one file that says it is done.

WORK/plan.json                  what will run
WORK/jobs/<id>/job.json         its part of the plan, for the job itself
WORK/jobs/<id>/state.json       progress, for the live display and `em-bench status`
WORK/jobs/<id>/log.txt          everything the job printed
WORK/jobs/<id>/done-<key>.json  written last; the key is a digest of everything that determines the job's result,
                                so a changed recipe asks for another file and nothing needs to be invalidated
WORK/runs/, WORK/evaluations/   what the jobs made, named by content
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from em_bench.data.models import Model
from em_bench.errors import UserError
from em_bench.files import read_record
from em_bench.optim import Recipe
from em_bench.records import Choice, Record, Sha256, Study
from em_bench.sweep.preset import Preset

Chosen = Literal["chosen"]

# The modules by which the code of each kind of job is known, with all that they import.
ENTRIES = {
    "base": ("em_bench.data.models",),
    **dict.fromkeys(("lr", "lambda", "train"), ("em_bench.sweep.training",)),
    "answer": ("em_bench.sweep.answering",),
    "evaluate": ("em_bench.sweep.evaluating",),
    "report": ("em_bench.sweep.results", "em_bench.analysis.preset_page"),
}

Choices = Mapping[Literal["learning_rate", "spectral_lambda"], Choice]
CHOSEN: tuple[Literal["learning_rate", "spectral_lambda"], ...] = ("learning_rate", "spectral_lambda")


class Cell(Record):
    """One adapter of a sweep, or the untouched base. What an earlier job chooses is not known yet: `chosen`."""

    model: str
    dataset: str | None = None
    recipe: str | None = None
    learning_rate: float | Chosen | None = None
    spectral_lambda: float | Chosen | None = None
    batch_size: int | None = None
    seed: int | None = None
    epochs: float | None = Field(default=None, exclude_if=lambda v: v is None, description="in place of the preset's length")

    @property
    def name(self) -> str:
        """How people call it, e.g. `organism-qwen3 medical adamw lr=0.001 lambda=0 batch=32 seed=0`."""
        if self.recipe is None:
            return f"{self.model} base"

        def text(value: float | str | None) -> str:
            return f"{value:g}" if isinstance(value, float | int) else str(value)

        settings = f"lr={text(self.learning_rate)} lambda={text(self.spectral_lambda)} batch={self.batch_size} seed={self.seed}"
        length = "" if self.epochs is None else f" epochs={self.epochs:g}"
        return f"{self.model} {self.dataset} {self.recipe} {settings}{length}"

    def settings(self) -> "CellSettings":
        """Those of an adapter's cell."""
        made = (self.dataset, self.recipe, self.learning_rate, self.spectral_lambda, self.batch_size, self.seed)
        dataset, recipe, rate, spectral_lambda, batch_size, seed = made
        assert dataset and recipe and rate is not None and spectral_lambda is not None and batch_size and seed is not None
        return CellSettings(dataset, recipe, rate, spectral_lambda, batch_size, seed)

    def resolved(self, choices: Choices) -> "Cell | None":
        """The cell with what was chosen for it; None where nothing met the rule."""
        found: dict[str, float | None] = {name: choices[name].chosen for name in CHOSEN if getattr(self, name) == "chosen"}
        return None if None in found.values() else self.model_copy(update=found)


class CellSettings(NamedTuple):
    """What an adapter is trained by."""

    dataset: str
    recipe: str
    learning_rate: float | Chosen
    spectral_lambda: float | Chosen
    batch_size: int
    seed: int


class Job(Record):
    """A pack of cells that share a base, run by one process.

    base: have the base model on disk. lr, lambda: train the candidates and choose. train: train. answer: with engine vllm, have all
    answers of a base and its adapters. evaluate: evaluate trained cells. report: collect everything (made by the controller itself, when the others have ended).
    """

    id: str = Field(description="begins with the kind")
    kind: Literal["base", "lr", "lambda", "train", "answer", "evaluate", "report"]
    needs: tuple[str, ...] = ()
    cells: tuple[Cell, ...] = ()
    checkpointed: tuple[Cell, ...] = Field(default=(), description="those of the cells that are evaluated at earlier steps too")
    studies: dict[str, tuple[Study, ...]] = Field(
        default_factory=dict, exclude_if=lambda v: not v, description="cell -> the paper's studies that it is run for"
    )
    key: str = Field(description="first 16 hex digits of the digest of all that determines the result")
    code: str = Field(description="digest of the code that determines the result, which the key covers")
    estimate_s: float | None = Field(description="seconds on its GPUs, or else on one core; None where nothing is known")
    parts: dict[str, float] = Field(default_factory=dict, description="of the estimate: what the seconds go to")
    threads: int = 1
    gpus: int = 0

    @property
    def several_processes(self) -> bool:
        """Whether it is done by a process a GPU, rather than by one that has them all."""
        return self.gpus > 1 and self.kind not in ("answer", "evaluate")

    @property
    def model(self) -> str:
        """The base that it is about."""
        return self.cells[0].model if self.cells else self.id.removeprefix(f"{self.kind}-")


class Plan(Record):
    """plan.json."""

    schema_version: Literal["em_bench.plan/1"] = "em_bench.plan/1"
    preset: Preset
    preset_sha256: Sha256
    models: dict[str, Model] = Field(default_factory=dict, description="of the roster, as they were when this was planned")
    recipes: dict[str, Recipe] = Field(default_factory=dict, description="likewise")
    jobs: tuple[Job, ...]

    @cached_property
    def _by_id(self) -> dict[str, Job]:
        return {j.id: j for j in self.jobs}

    def job(self, job_id: str) -> Job:
        """The job of that id."""
        return self._by_id[job_id]


class Inputs(Record):
    """The identity of what jobs read: of rows, questions and the judge's prompts."""

    datasets: dict[str, Sha256] = Field(default_factory=dict)
    questions: Sha256 | None = None
    prompts: Sha256 | None = None


class JobOrder(Record):
    """job.json. All that its names stand for is in it: an edit while the sweep runs changes no job of it."""

    preset: Preset
    job: Job
    needs: tuple[Job, ...]
    model: Model | None = Field(description="None for the report and in tests of the engine")
    recipe: Recipe | None = None
    inputs: Inputs

    @property
    def base(self) -> str:
        """What names its base to what loads it: the roster's name, or the folder of a model of the preset's own."""
        own = self.preset.own_models.get(self.job.model)
        return own.path if own and own.path else self.job.model

    def roster_model(self) -> Model:
        """The model of every job but the report."""
        assert self.model is not None
        return self.model


class JobState(Record):
    """state.json."""

    status: Literal["running", "failed"]
    key: str
    pid: int
    slurm_job: str | None = None
    cells_done: int = 0
    cells: int
    doing: str | None = None
    loss: float | None = None
    error: str | None = None
    started: str


class JobDone(Record):
    """done-<key>.json."""

    schema_version: Literal["em_bench.job/1"] = "em_bench.job/1"
    job: str
    key: str
    choice: Choice | None = None
    runs: dict[str, str] = Field(default_factory=dict, description="cell, with what was chosen for it -> run id")
    evaluations: dict[str, str] = Field(default_factory=dict, description="cell -> folder under evaluations/")
    checkpoints: dict[str, list[str]] = Field(default_factory=dict, description="cell -> folders of its earlier steps")
    controls: dict[str, str] = Field(default_factory=dict, description="cell -> folder of its rescaled adapter's evaluation")
    gaps: dict[str, str] = Field(default_factory=dict, description="cell -> why it has no result")
    revision: str | None = Field(
        default=None, exclude_if=lambda v: v is None, description="hub commit of the base that the job used"
    )
    loads: int = Field(default=0, exclude_if=lambda v: not v, description="how often the job loaded its base")
    results_sha256: Sha256 | None = Field(default=None, description="of the results.json that a report wrote")
    wall_s: float


def read_plan(work: Path) -> Plan:
    """plan.json of a work folder. Raises UserError where there is none."""
    return read_record(work / "plan.json", Plan)


def write_order(work: Path, plan: Plan, job: Job, inputs: Inputs = Inputs()) -> None:
    """Leave a job what it reads before it begins: a thousand jobs do not each read the plan of a thousand."""
    order = JobOrder(
        preset=plan.preset,
        job=job,
        needs=tuple(plan.job(n) for n in job.needs),
        model=plan.models.get(job.model),
        recipe=plan.recipes.get(job.cells[0].recipe or "") if job.cells else None,
        inputs=inputs.model_copy(
            update={"datasets": {c.dataset: inputs.datasets[c.dataset] for c in job.cells if c.dataset in inputs.datasets}}
        ),
    )
    # Not files.write_record: whoever starts jobs writes them anew, so that none has to survive a fall of the machine.
    (job_folder(work, job) / "job.json").write_text(order.model_dump_json())


def read_order(work: Path, job_id: str) -> JobOrder:
    """What a job has to know. Raises UserError where no controller has ordered it."""
    return read_record(work / "jobs" / job_id / "job.json", JobOrder)


def job_folder(work: Path, job: Job) -> Path:
    """Where a job leaves its traces."""
    return work / "jobs" / job.id


def done_path(work: Path, job: Job) -> Path:
    """The file whose existence says that the job is done."""
    return job_folder(work, job) / f"done-{job.key}.json"


def read_done(work: Path, job: Job) -> JobDone | None:
    """What the job made, or None while it is not done."""
    path = done_path(work, job)
    return read_record(path, JobDone) if path.exists() else None


def one_revision(model: str, done: Iterable[JobDone]) -> str | None:
    """The commit of the hub that all these jobs on a base used; None of a base from elsewhere. Raises UserError for several."""
    found = {d.revision: d.job for d in done if d.revision}
    if len(found) > 1:
        used = ", ".join(f"{job} {revision[:12]}" for revision, job in sorted(found.items()))
        raise UserError(
            f"{model}: jobs used other revisions of it ({used}), which one table must not mix; start over with --fresh"
        )
    return next(iter(found), None)


def read_state(work: Path, job: Job) -> JobState | None:
    """The job's state, or None where it has not started."""
    try:
        state = JobState.model_validate_json((job_folder(work, job) / "state.json").read_bytes())
    except FileNotFoundError:
        return None
    return state if state.key == job.key else None
