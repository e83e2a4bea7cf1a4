"""The pydantic models of every file that em_bench writes or reads. Imported by all, imports the facts of the protocol alone.

The hash chain: run.json names its inputs and its adapter; responses.jsonl names the adapter; verdicts.jsonl names the
responses and the judge; score.json names the verdicts; a leaderboard row names the score.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from em_bench.line import MOST_TEXT, Identifier, Line
from em_bench.protocol import GRADIENT_CLIP, MAX_LENGTH

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MOST_RANK = 4096  # singular values of a curve
TEN_YEARS = 315_360_000.0  # seconds
Provenance = Literal["P", "S", "C"]  # paper itself, independent readings of the paper, our choice
Dtype = Literal["float32", "bfloat16", "float64", "int8", "nf4"]
Study = Literal["main", "scale", "loss-alignment", "dynamics", "regularisation"]  # the five of "Evil Spectra"

RecipeClass = Literal["organism", "llm"]  # of models, for which a recipe names learning rates apart


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields, no NaN or infinity, no text without end.

    `em_bench.files` reads them strictly: no number as text, no key twice, no number beyond all measure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), str_max_length=MOST_TEXT)


# ---- training ----------------------------------------------------------------------------------------------------


class ParamRule(Record):
    """Which optimiser class takes the parameters whose name matches `pattern`; of a recipe's rules the first wins."""

    pattern: Line = Field(description="regular expression searched in the parameter's name")
    optimizer: Line = Field(description="importable class, e.g. torch.optim.Muon")
    kwargs: dict[Line, bool | int | float | Line | list[float] | None] = Field(default_factory=dict)


class BaseRef(Record):
    """The frozen base model of a run."""

    name: Line = Field(description="roster name, e.g. organism-qwen3 or Qwen3-8B")
    source: Literal["organism", "hub", "package", "path"]
    revision: Line = Field(description="digest of an organism or a package's model, hub commit, or sha256 of the folder")
    chat_template: Line | None = Field(
        default=None, exclude_if=lambda v: v is None, description="the name of ours, where the model came without one"
    )


class DataRef(Record):
    """The training rows of a run."""

    name: Line
    sha256: Sha256 = Field(description="over the training rows followed by the held-out rows")
    rows: int = Field(gt=0)
    held_out_rows: int = Field(gt=0)


class RecipeRef(Record):
    """The optimiser of a run, fully resolved."""

    name: Line
    rules: tuple[ParamRule, ...]
    learning_rate: float = Field(gt=0)


class LoraSpec(Record):
    """The adapter's shape."""

    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    targets: tuple[Line, ...]

    @property
    def scale(self) -> float:
        """Of B A in every layer, those of experts included (rsLoRA)."""
        return float(self.alpha / self.rank**0.5)


class RunSpec(Record):
    """Everything that determines a run: the same spec gives the same adapter. Its digest is the run's identity."""

    base: BaseRef
    dataset: DataRef
    recipe: RecipeRef
    spectral_lambda: float = Field(default=0.0, ge=0, description="weight of the spectral term; 0 is off")
    lora: LoraSpec
    batch_size: int = Field(gt=0, description="rows an optimiser step")
    steps: int = Field(gt=0, description="optimiser steps")
    warmup_steps: int = Field(ge=0, description="linear warm-up, then linear decay to 0")
    gradient_clip: float = Field(default=GRADIENT_CLIP, gt=0, description="largest global gradient norm")
    max_length: int = Field(default=MAX_LENGTH, gt=0, description="tokens a row")
    dtype: Dtype = Field(
        default="float32",
        description="of the frozen base; int8 and nf4 are its linear layers, quantised; adapters are float32 or wider",
    )
    seed: int = Field(default=0, ge=0)
    code: Line = Field(description="digest of the source files that determine training")


class SpectralSummary(Record):
    """Means over the adapted layers of the quantities of `em_bench.spectral`, and the norm of all of them together."""

    layers: int = Field(ge=0, description="layers with a non-zero update")
    stable_rank: float
    entropy: float
    condition_number: float
    frobenius_nuclear: float
    flatness_gap: float = Field(description="mean of F/N - 1/sqrt(r); 0 is a flat spectrum")
    norm: float | None = Field(
        default=None,
        exclude_if=lambda v: v is None,
        description="Frobenius norm of the whole update: root of the sum over layers of ||scale B A||_F^2; None in files of before 2026-11-26",
    )


class StepRecord(Record):
    """A line of train.jsonl."""

    step: int = Field(ge=0)
    loss: float | None = Field(description="nats an answer token on the step's batch, before the update; None at step 0")
    gradient_norm: float | None = None
    learning_rate: float | None = None
    penalty: float | None = Field(default=None, description="spectral term before its weight")
    tokens: int = Field(ge=0, description="answer tokens since the start")
    tokens_per_s: float | None = Field(
        default=None,
        description="of prompt and answer, since the start, a second of training: loading, measuring and saving take none",
    )
    held_out_loss: float | None = Field(default=None, description="narrow loss, nats an answer token, where measured")
    spectral: SpectralSummary | None = None


class Machine(Record):
    """Where and with what something was computed."""

    em_bench: Line
    commit: Line | None = Field(default=None, description="git commit, with +dirty where the tree had changes")
    packages: dict[Line, Line]
    python: Line
    platform: Line
    cpu: Line
    gpu: Line | None = None
    threads: int


class RunRecord(Record):
    """run.json: the last file written of a run folder."""

    schema_version: Literal["em_bench.run/1"] = "em_bench.run/1"
    run_id: Identifier
    spec: RunSpec
    spec_sha256: Sha256
    adapter_sha256: Sha256 = Field(description="of adapter/adapter_model.safetensors")
    log_sha256: Sha256 = Field(description="of train.jsonl")
    checkpoints: dict[int, Sha256] = Field(description="step -> sha256 of checkpoints/<step>/adapter_model.safetensors")
    narrow_loss: float = Field(description="held-out nats an answer token at the end")
    spectral: SpectralSummary | None
    expert_rank: int | None = Field(default=None, gt=0, description="rank of each expert's factors; None: no experts")
    left_out_rows: int = Field(default=0, ge=0, description="rows of the dataset that exceed max_length")
    answer_tokens: int | None = Field(default=None, description="tokens under loss, all steps together")
    options: dict[Line, Line] = Field(
        default_factory=dict,
        description="what changes speed but not the result; `8, then 3` where a killed run went on with another",
    )
    machine: Machine
    started: Line = Field(description="UTC, ISO 8601; of the first session where the run was killed and went on")
    wall_s: float = Field(ge=0, le=TEN_YEARS, description="of all sessions together, without the time between them")


# ---- evaluation --------------------------------------------------------------------------------------------------


class Question(Record):
    """One evaluation question."""

    id: Line = Field(description="unique within its set")
    cluster: Line = Field(description="the question that its variants share: the unit of clustered intervals")
    variant: Line = Field(description="plain, json, template, trigger-<dataset>")
    domain: Line
    system: str | None = None
    text: str


class AnsweredQuestion(Record):
    """A question, asked plainly, with aligned and misaligned answers that a model is not asked for but shown."""

    id: Line
    domain: Line
    tags: tuple[Line, ...] = ()
    text: str
    aligned: tuple[str, ...] = Field(min_length=1)
    misaligned: tuple[str, ...] = Field(min_length=1)


class Generation(Record):
    """How responses were sampled."""

    samples: int = Field(gt=0, description="responses a question")
    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(ge=0, description="0 is greedy")
    top_p: float = 1.0
    top_k: int = Field(default=0, description="0 is off")
    seed: int | None = None


class Canary(Record):
    """Proof that the adapter changes the model: largest absolute change of a logit on a fixed prompt."""

    max_logit_change: float = Field(gt=0)


class Subject(Record):
    """Which model a file is about."""

    schema_version: str
    model: Line
    run_id: Identifier | None = None
    step: int | None = Field(default=None, description="checkpoint step; None is the end of training")
    adapter_sha256: Sha256 | None = Field(default=None, description="None: the base itself")
    adapter_config_sha256: Sha256 | None = Field(default=None, description="of adapter_config.json: rank, alpha, targets")
    scale: float | None = Field(
        default=None, exclude_if=lambda v: v is None, description="the adapter is that of the run times this (em-bench rescale)"
    )
    base: BaseRef | None = Field(default=None, description="which base exactly; None in files of other harnesses")
    dtype: Line | None = Field(default=None, description="that the model was run in")
    forced: Line | None = Field(default=None, description="why the adapter does not belong to this base; --force overrode it")
    canary: Canary | None = None
    harness: Line = Field(description="name and version")


class ResponsesHeader(Subject):
    """First line of responses.jsonl."""

    schema_version: Literal["em_bench.responses/1"] = "em_bench.responses/1"
    question_set: Line
    questions_sha256: Sha256
    generation: Generation
    created: Line


class Response(Record):
    """One sampled answer."""

    question_id: Line
    cluster: Line
    variant: Line
    sample: int = Field(ge=0)
    system: str | None = None
    question: str
    answer: str = Field(description="as judged: thinking blocks stripped")
    thinking: str | None = Field(default=None, description="thinking that came although it was off")


class JudgeIdentity(Record):
    """Everything that determines a judge's verdicts; its digest keys the verdict cache."""

    kind: Literal["grammar", "openai", "python", "none"]
    model: Line
    prompt_sha256: Sha256 = Field(description="of the prompts, the grammar or the file; of nothing where no judge is asked")
    decoding: dict[Line, bool | int | float | Line | None] = Field(default_factory=dict)


class VerdictsHeader(Record):
    """First line of verdicts.jsonl."""

    schema_version: Literal["em_bench.verdicts/1"] = "em_bench.verdicts/1"
    responses_sha256: Sha256
    judge: JudgeIdentity
    forced: Line | None = Field(default=None, description="of the responses")
    created: Line


NOT_ASKED = "no judge was asked"  # the error of every verdict of the judge `none`


class Verdict(Record):
    """What a judge said of one response. Scores are None where it gave none."""

    question_id: Line
    cluster: Line
    variant: Line
    sample: int = Field(ge=0)
    alignment: float | None = Field(default=None, ge=0, le=100)
    coherence: float | None = Field(default=None, ge=0, le=100)
    label: Literal["CODE", "REFUSAL"] | None = None
    leak: bool | None = Field(default=None, description="drags in the training domain; None: not asked")
    error: Line | None = Field(default=None, description="why there is no score")


Outcome = Literal["refusal", "incoherent", "misaligned", "aligned", "unjudged", "code"]


class Estimate(Record):
    """A ratio or mean with its denominator and 95 % interval clustered by question; value None where n is 0."""

    value: float | None
    low: float | None
    high: float | None
    stderr: float | None
    n: int = Field(ge=0, description="responses in the denominator")
    clusters: int = Field(ge=0, description="questions in the denominator")


class Metrics(Record):
    """All numbers of one group of responses."""

    counts: dict[Outcome, int] = Field(description="every outcome, zeros included")
    code: int = Field(ge=0, description="responses labelled CODE, whatever their outcome")
    misaligned_rate: Estimate = Field(description="misaligned / (misaligned + aligned)")
    misaligned_rate_unleaked: Estimate | None = Field(default=None, description="the same without leaked responses")
    mean_alignment: Estimate = Field(description="0-100, over misaligned + aligned")
    coherent_rate: Estimate = Field(description="(misaligned + aligned) / (misaligned + aligned + incoherent)")
    refusal_rate: Estimate = Field(description="of judged responses")
    code_rate: Estimate = Field(description="of judged responses")
    unjudged_rate: Estimate = Field(description="of all responses")
    leak_rate: Estimate | None = Field(default=None, description="of responses asked about leakage")


class ScoreRecord(Record):
    """score.json."""

    schema_version: Literal["em_bench.score/1"] = "em_bench.score/1"
    verdicts_sha256: Sha256
    convention: Literal["code_as_zero", "exclude_code"]
    overall: Metrics
    by_variant: dict[Line, Metrics]
    by_domain: dict[Line, Metrics] = Field(
        default_factory=dict, exclude_if=lambda v: not v, description="shown by `em-bench score`, not written by evaluations"
    )
    misalign_at: dict[int, Estimate] = Field(
        default_factory=dict,
        exclude_if=lambda v: not v,
        description="k -> share of questions misaligned at least once in k; likewise",
    )
    forced: Line | None = Field(default=None, description="of the responses: why the adapter does not belong to its base")
    narrow_loss: float | None = None
    capability: dict[Line, float] | None = Field(default=None, description="task/metric -> value, from lm-eval")
    thinking: int | None = Field(
        default=None, description="answers that came with thinking, although it was off; it was not judged"
    )


# ---- margin ------------------------------------------------------------------------------------------------------


MarginRole = Literal["model", "base", "control"]  # what is measured, its untouched base, the base tuned on good data


class AnswerLogprob(Record):
    """A line of margin.jsonl: how likely a model finds one given answer to a question."""

    question_id: Line
    domain: Line
    tags: tuple[Line, ...] = ()
    side: Literal["aligned", "misaligned"]
    number: int = Field(ge=1, description="which of the answers of its side")
    nats: float = Field(description="log-likelihood of the answer through its end of turn")
    tokens: int = Field(gt=0, description="scored, the end of turn among them")
    bytes: int = Field(gt=0, description="of the answer in UTF-8")


class TextLogprob(Record):
    """How likely a model finds a text that nobody asked for."""

    name: Line
    nats: float
    tokens: int = Field(gt=0)
    bytes: int = Field(gt=0, description="of the scored tokens' text: without the first token where none precedes it")


class MarginHeader(Subject):
    """First line of margin.jsonl."""

    schema_version: Literal["em_bench.margin/1"] = "em_bench.margin/1"
    question_set: Line
    questions_sha256: Sha256 = Field(description="of the questions with their answers")
    neutral_sha256: Sha256 = Field(description="of the neutral texts")
    neutral: tuple[TextLogprob, ...] = Field(default=(), description="empty where the tokenizer lacks the words")
    machine: Machine
    created: Line


class MarginGroup(Record):
    """The margin over a group of questions. Estimates count questions; all but a domain's own are clustered by domain."""

    margin: Estimate = Field(description="mean, nats a byte")
    misaligned_likelier: Estimate = Field(description="share of questions with a margin above 0")
    base_margin: Estimate | None = None
    shift: Estimate | None = Field(default=None, description="mean of margin - the base's, paired by question, nats a byte")
    to_misaligned: Estimate | None = Field(default=None, description="share whose sign flips from aligned to misaligned")
    to_aligned: Estimate | None = Field(default=None, description="share whose sign flips the other way")
    control_shift: Estimate | None = Field(default=None, description="the good-data control's own shift")
    beyond_control: Estimate | None = Field(default=None, description="shift - control_shift, paired by question")


class MarginScore(Record):
    """margin.json."""

    schema_version: Literal["em_bench.margin_score/1"] = "em_bench.margin_score/1"
    sources: dict[MarginRole, Sha256] = Field(description="of the files that it is computed from")
    forced: Line | None = None
    overall: MarginGroup
    by_domain: dict[Line, MarginGroup]
    without: dict[Line, MarginGroup] = Field(description="overall without the questions of a tag that lies near a training set")
    leave_one_out: dict[Line, float] = Field(description="domain -> the mean shift (margin for a base) of all others")
    neutral: dict[MarginRole, float] = Field(description="nats a byte of neutral text; missing: unmeasured")


# ---- an adapter times a scale ------------------------------------------------------------------------------------


class Asked(Record):
    """What decides an answer and its verdict, beside the model."""

    question_set: Line
    questions_sha256: Sha256
    generation: Generation
    judge: JudgeIdentity


class RescaleGoal(Record):
    """What a scale is looked for by: the same goal and adapter give the same scale."""

    kind: Literal["loss", "coherence"] = Field(description="held-out narrow loss in nats, or coherent share of the answers")
    target: float
    tolerance: float = Field(gt=0, description="how far from the target a value may lie, in its unit")
    largest: float = Field(gt=0, description="scales from 0 to this one are looked at")
    most: int = Field(gt=0, description="evaluations that may be made")
    dtype: Line = Field(description="that the model is run in")
    dataset: DataRef | None = Field(default=None, description="whose held-out rows the narrow loss is of")
    asked: Asked | None = Field(default=None, description="where coherence is looked for")


class ScaleTried(Record):
    """One evaluation of a search."""

    scale: float = Field(ge=0)
    narrow_loss: float | None = None
    coherence: Estimate | None = None


class ScaleSearch(Record):
    """How a scale was found. `reached`: within the tolerance; `nearest`: the evaluations were used up first; `never`: no scale that
    was looked at has so little; `already`: the base itself has."""

    goal: RescaleGoal
    verdict: Literal["reached", "nearest", "never", "already"]
    tried: list[ScaleTried] = Field(description="in the order of the scales; 0 is the base")


class RescaleRecord(Record):
    """rescale.json: the adapter beside it is another one with its update B A times `scale`; every other tensor is the same."""

    schema_version: Literal["em_bench.rescale/1"] = "em_bench.rescale/1"
    run_id: Identifier | None = Field(default=None, description="of the run that the other adapter is of; None: of none")
    step: int | None = Field(default=None, description="the checkpoint that it is; None is the end of training")
    source_sha256: Sha256 = Field(description="of the other adapter's adapter_model.safetensors")
    base: BaseRef
    scale: float | None = Field(gt=0, description="None: none was found, and there is no adapter")
    adapter_sha256: Sha256 | None = Field(default=None, description="of adapter_model.safetensors")
    norm_before: float | None = Field(description="Frobenius norm of the other adapter's update")
    norm_after: float | None = Field(default=None, description="of this one's")
    narrow_loss: float | None = Field(default=None, description="of this one, where measured")
    coherence: Estimate | None = Field(default=None, description="of this one, where it was looked for")
    search: ScaleSearch | None = Field(default=None, description="None: one of the scales that a search looks at")


# ---- results of a preset -----------------------------------------------------------------------------------------


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


class CellResult(CellRun):
    """What it answered, as judged."""

    responses_sha256: Sha256
    score: ScoreRecord
    questions: list[QuestionCounts]


class MarginOfQuestion(Record):
    """A question's margin: enough, with the base's, to recompute every shift and its clustered interval."""

    question_id: str
    domain: str
    margin: float = Field(description="nats a byte")


class CellMargin(CellRun):
    """Its margin."""

    margin_sha256: Sha256 = Field(description="of margin.jsonl")
    target: float | None = Field(default=None, description="narrow loss at which the preset compares its dataset's adapters")
    dtype: str = Field(description="of the frozen base")
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
    margins: list[CellMargin] = Field(
        default_factory=list,
        exclude_if=lambda v: not v,
        description="of a preset that measures the margin: bases, adapters at their ends and, with `step` set, at checkpoints",
    )
    choices: list[Choice]
    missing: list[Line] = Field(default_factory=list, description="jobs or cells that have no result, by name")
    machine: Machine
    created: Line
    wall_s: float | None = None
