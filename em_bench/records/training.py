"""A run: what determines it, its log, its record."""

from typing import Literal

from pydantic import Field

from em_bench.line import Identifier, Line
from em_bench.protocol import FLATNESS, GRADIENT_CLIP, MAX_LENGTH
from em_bench.records.base import TEN_YEARS, Dtype, Record, Sha256

Kept = Literal["log-spaced", "none"]


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
    stored: Literal["float32", "bfloat16"] = Field(
        default="float32",
        exclude_if=lambda v: v == "float32",
        description="bfloat16: rounded before the last measurement and in files; trained in float32 all the same. float64 bases have float64 adapters",
    )

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
    flatness: Line = Field(
        default=FLATNESS, exclude_if=lambda v: v == FLATNESS, description="measure of the term, one of em_bench/flatness.py"
    )
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
    targets: tuple[float, ...] = Field(
        default=(),
        exclude_if=lambda v: not v,
        description="narrow losses on both sides of whose first crossings adapters are kept, 5 % of the run apart or less",
    )
    kept: Kept = Field(
        default="log-spaced",
        exclude_if=lambda v: v == "log-spaced",
        description="steps whose adapters stay beside the sides of targets: the log-spaced ones, or none",
    )
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
    checkpoints: dict[int, Sha256] = Field(
        description="step before the last -> sha256 of checkpoints/<step>/adapter_model.safetensors; files of before 2026-11-26 have the last too"
    )
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
