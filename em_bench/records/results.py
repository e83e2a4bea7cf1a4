"""The results of a preset: its cells, what was chosen, what is missing."""

from typing import Literal

from pydantic import Field

from em_bench.line import Identifier, Line
from em_bench.records.base import MOST_RANK, Record, Sha256, Study
from em_bench.records.evaluation import Outcome, ScoreRecord
from em_bench.records.margin import MarginGroup
from em_bench.records.training import Machine, SpectralSummary


class QuestionCounts(Record):
    """Outcomes of one question's responses: enough to recompute every rate and its clustered interval."""

    question_id: Line
    cluster: Line
    variant: Line
    domain: Line | None = Field(default=None, exclude_if=lambda v: v is None, description="None in files of before 2026-11-26")
    counts: dict[Outcome, int]
    code: int = Field(ge=0)
    leaked: int | None = Field(default=None, description="leaked responses; None: not asked")
    leaked_misaligned: int | None = None
    leaked_aligned: int | None = None
    alignment: list[float] = Field(description="alignment scores of the misaligned and aligned responses")


class TrajectoryPoint(Record):
    """A log-spaced step of a run."""

    step: int = Field(ge=0)
    narrow_loss: float
    spectral: SpectralSummary | None = None
    train_loss: float | None = Field(
        default=None,
        exclude_if=lambda v: v is None,
        description="nats an answer token, smoothed as in em_bench/training/smoothed_train_loss.py",
    )


class SpectrumCurve(Record):
    """Singular values over their layer's largest, by rank index: mean and quartiles over adapted layers."""

    mean: list[float] = Field(max_length=MOST_RANK)
    lower_quartile: list[float] = Field(max_length=MOST_RANK)
    upper_quartile: list[float] = Field(max_length=MOST_RANK)


class CellRun(Record):
    """An adapter of a preset (or, with recipe None, the untouched base) and its training; what it was asked is said by what extends this."""

    model: Line
    dataset: Line | None = None
    recipe: Line | None = None
    learning_rate: float | None = None
    spectral_lambda: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    step: int | None = Field(default=None, description="evaluated checkpoint; None is the end of training")
    run_id: Identifier | None = None
    spec_sha256: Sha256 | None = None
    adapter_sha256: Sha256 | None = None
    narrow_loss: float | None = None
    trajectory: list[TrajectoryPoint] = Field(default_factory=list)
    spectral: SpectralSummary | None = None
    spectrum: SpectrumCurve | None = None
    spectral_groups: dict[Line, SpectralSummary] = Field(
        default_factory=dict, description="the same by group of layers: a projection such as q_proj, a depth such as layer 0"
    )
    wall_s: float | None = Field(default=None, description="training time")
    steps: int | None = None
    train_loss: float | None = Field(
        default=None, exclude_if=lambda v: v is None, description="nats an answer token: mean over the last `train_window` steps"
    )
    train_window: int | None = Field(
        default=None, exclude_if=lambda v: v is None, description="steps that train_loss is smoothed over"
    )
    studies: list[Study] = Field(
        default_factory=list, exclude_if=lambda v: not v, description="of the paper, that the preset ran it for"
    )


class Rescaled(Record):
    """A finished adapter times `scale`, the smallest at which its narrow loss, or its coherence, is the target's: the control for the size
    of an update."""

    kind: Literal["loss", "coherence"]
    target: float
    scale: float = Field(gt=0)
    reached: bool = Field(description="within the search's tolerance; else the nearest within its evaluations")


class CellResult(CellRun):
    """What it answered, as judged."""

    rescaled: Rescaled | None = Field(default=None, exclude_if=lambda v: v is None, description="of a control, else None")

    responses_sha256: Sha256
    score: ScoreRecord
    questions: list[QuestionCounts]
    slots: dict[Line, int] = Field(
        default_factory=dict,
        exclude_if=lambda v: not v,
        description="of an organism: its coherent answers, and those whose first action, second action, reason is bad",
    )

    def cluster(self, question: QuestionCounts) -> str:
        """What a question's answers are clustered by: its domain where the score says so, else the question that its variants share."""
        return question.domain if self.score.unit == "domain" and question.domain else question.cluster


class MarginOfQuestion(Record):
    """A question's margin: enough, with the base's, to recompute every shift and its clustered interval."""

    question_id: Line
    domain: Line
    margin: float = Field(description="nats a byte")


class CellMargin(CellRun):
    """Its margin."""

    margin_sha256: Sha256 = Field(description="of margin.jsonl")
    target: float | None = Field(default=None, description="narrow loss at which the preset compares its dataset's adapters")
    dtype: Line = Field(description="of the frozen base")
    overall: MarginGroup
    neutral: float | None = Field(default=None, description="nats a byte of neutral text")
    questions: list[MarginOfQuestion]


class Choice(Record):
    """A learning rate or lambda chosen on held-out narrow loss alone."""

    kind: Literal["learning_rate", "spectral_lambda"]
    model: Line
    recipe: Line
    batch_size: int | None = None
    chosen: float | None = Field(description="None: no candidate meets the rule")
    losses: dict[Line, float] = Field(description="candidate -> mean held-out narrow loss over datasets and seeds")
    edge: bool = Field(
        default=False,
        exclude_if=lambda v: not v,
        description="the grid was not extended far enough to have the choice in its inside",
    )
    rule: Line


class Results(Record):
    """results.json: everything a preset produced, without weights and without response texts."""

    schema_version: Literal["em_bench.results/1"] = "em_bench.results/1"
    preset: Line
    preset_sha256: Sha256
    cells: list[CellResult]
    checkpoints: list[CellResult] = Field(
        default_factory=list, description="the same cells at earlier steps (`step` is set), where the preset asks for them"
    )
    controls: list[CellResult] = Field(
        default_factory=list,
        exclude_if=lambda v: not v,
        description="the adapters at their ends, rescaled: settings, seed and run are the cell's, loss, norm and answers the control's",
    )
    margins: list[CellMargin] = Field(
        default_factory=list,
        exclude_if=lambda v: not v,
        description="of a preset that measures the margin: bases, adapters at their ends and, with `step` set, at checkpoints",
    )
    targets: dict[Line, tuple[float, ...]] = Field(
        default_factory=dict,
        exclude_if=lambda v: not v,
        description="MODEL/DATASET -> narrow losses, falling, on both sides of whose first crossings adapters were asked",
    )
    choices: list[Choice]
    missing: list[Line] = Field(default_factory=list, description="jobs or cells that have no result, by name")
    machine: Machine
    created: Line
    wall_s: float | None = None
