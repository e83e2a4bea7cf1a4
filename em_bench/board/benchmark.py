"""The rules of a benchmark version, frozen in leaderboard/benchmark/VERSION.json: results of one version are comparable."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from em_bench import assets
from em_bench.errors import UserError
from em_bench.files import digest, read_record
from em_bench.line import Line
from em_bench.protocol import steps_of
from em_bench.records import Generation, LoraSpec, Record, Sha256

TierName = Literal["organism", "small", "full"]


class TierModel(Record):
    """A base model that every entry of the tier fine-tunes."""

    name: str = Field(description="name of baselines/models.yaml")
    revision: str | None = Field(description="as in a run's spec; None until the tier is opened")


class TierDataset(Record):
    """A narrow training set."""

    name: str
    sha256: Sha256 | None = Field(description="of its rows; None until the tier is opened")
    rows: int | None = Field(default=None, gt=0, description="training rows; None until the tier is opened")
    entropy: float | None = Field(default=None, description="nats a token below which no honest loss lies, where it is known")


class TierQuestions(Record):
    """What every adapter is asked."""

    name: str
    variants: tuple[str, ...] | None
    count: int = Field(gt=0)
    sha256: Sha256 | None


class JudgeRule(Record):
    """The judge that every entry of the tier is judged by."""

    kind: Literal["grammar", "openai"]
    model: str
    prompts: str | None = Field(default=None, description="name of the judge prompts; None: the grammar has none")
    prompt_sha256: Sha256 | None
    decoding: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="what a verdict's judge must say of its decoding; more may stand there"
    )

    @property
    def spec(self) -> str:
        """The words that `em_bench.judging.make_judge` takes."""
        return self.kind if self.kind == "grammar" else f"{self.kind}:{self.model},prompts={self.prompts}"


class Target(Record):
    """The held-out narrow loss of a cell at which optimisers are compared."""

    model: str
    dataset: str
    baseline_loss: float = Field(gt=0, description="mean over seeds of what AdamW reaches at the end, nats an answer token")
    narrow_loss: float = Field(gt=0, description="baseline_loss + the tier's margin")
    untrained_loss: float = Field(gt=0, description="of the untouched base, where every run begins")


class Gates(Record):
    """What a row must keep to be ranked."""

    coherence_drop: float = Field(gt=0, le=1, description="how far the mean coherent rate may lie below AdamW's at the same loss")
    unjudged: float = Field(ge=0, le=1, description="largest share of responses without a verdict")
    capability_drop: float | None = Field(
        description="how far the mean capability may lie below AdamW's at the same loss; None: not measured"
    )


class Acceptance(Record):
    """What it takes to claim a record."""

    alpha: float = Field(gt=0, lt=1, description="Holm-corrected level of the comparison with the entry that holds the record")
    rerun_cells: int = Field(gt=0, description="random cells that a maintainer has trained again within tolerance")
    loss_tolerance: float = Field(gt=0, description="nats by which a re-trained final narrow loss may differ")
    rate_tolerance: float = Field(gt=0, le=1, description="by which a re-trained final misaligned rate may differ")
    sentence: str


class Tier(Record):
    """Everything that a result of the tier depends on."""

    summary: str
    hardware: str
    models: tuple[TierModel, ...] = Field(min_length=1)
    datasets: tuple[TierDataset, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=3)
    batch_size: int = Field(gt=0)
    steps: int | None = Field(default=None, gt=0)
    epochs: float | None = Field(default=None, gt=0)
    warmup_steps: int = Field(ge=0, description="linear warm-up, then linear decay to 0")
    gradient_clip: float = Field(gt=0, description="largest global gradient norm")
    max_length: int = Field(gt=0, description="tokens a row")
    dtype: Literal["float32", "bfloat16"] = Field(description="of the frozen base; adapters are float32")
    lora: LoraSpec
    questions: TierQuestions
    generation: Generation
    judge: JudgeRule
    capability: tuple[str, ...] = Field(default=(), description="lm-eval tasks asked beside the questions")
    learning_rates: int = Field(
        gt=0, description="most candidates; chosen on the first seed's narrow loss, never on misalignment"
    )
    lambdas: int = Field(gt=0, description="most weights of the spectral term, track `open`")
    lambda_tolerance: float = Field(gt=0, description="nats of mean narrow loss that the chosen lambda may cost")
    margin: float = Field(ge=0, description="nats above AdamW's final loss at which optimisers are compared")
    targets: tuple[Target, ...] = Field(description="one a model and dataset; empty: not yet measured, the tier is not open")
    gates: Gates
    acceptance: Acceptance

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.targets and {(t.model, t.dataset) for t in self.targets} != set(self.cells):
            raise ValueError("targets: one for each model and dataset, or none at all")
        frozen = [m.revision for m in self.models] + [v for d in self.datasets for v in (d.sha256, d.rows)]
        if self.targets and None in (*frozen, self.questions.sha256, self.judge.prompt_sha256):
            raise ValueError("an open tier pins every model, dataset, its questions and its judge")
        if (self.gates.capability_drop is None) != (not self.capability):
            raise ValueError("gates.capability_drop goes with the tasks of `capability`")
        return self

    @property
    def open(self) -> bool:
        """Whether entries are taken: the targets have been measured."""
        return bool(self.targets)

    @property
    def cells(self) -> list[tuple[str, str]]:
        """(model, dataset) pairs, in order."""
        return [(m.name, d.name) for m in self.models for d in self.datasets]

    def steps_of(self, dataset: str) -> int:
        """Optimiser steps of a run on one of the (pinned) datasets."""
        rows = next(d.rows for d in self.datasets if d.name == dataset)
        if self.steps:
            return self.steps
        assert rows is not None and self.epochs is not None  # of a tier without steps
        return steps_of(rows, self.batch_size, self.epochs)

    def target(self, model: str, dataset: str) -> Target:
        """The target of a cell."""
        return next(t for t in self.targets if (t.model, t.dataset) == (model, dataset))


class Bootstrap(Record):
    """How intervals are drawn: fixed, so that anyone gets the same digits."""

    replicates: int = Field(ge=100)
    seed: int = Field(ge=0)


class Benchmark(Record):
    """VERSION.json."""

    schema_version: Literal["em_bench.benchmark/1"] = "em_bench.benchmark/1"
    version: str = Field(pattern=r"^v[1-9][0-9]{0,3}$")
    frozen: str = Field(description="ISO date")
    baselines: dict[TierName, str] = Field(description="tier -> the entry that its others are compared with")
    bootstrap: Bootstrap
    training_code: tuple[Line, ...] = Field(
        default=(), description="digests of the training code whose runs are taken, beside the checker's own; empty: any"
    )
    tiers: dict[TierName, Tier]

    def rules_sha256(self, tier: TierName) -> Sha256:
        """Identity of a tier's rules; an entry names it."""
        return digest(self.tiers[tier])


def load_benchmark(version: str, folder: Path | None = None) -> Benchmark:
    """The rules of a version. Raises UserError where there is none of that name or its file is not valid."""
    folder = folder or assets.path("leaderboard", "benchmark")
    known = sorted(p.stem for p in folder.glob("v*.json"))
    if not re.fullmatch(r"v[1-9][0-9]{0,3}", version) or version not in known:
        raise UserError(f"benchmark: {version!r}: no such version; name one of {', '.join(known)}")
    found = read_record(folder / f"{version}.json", Benchmark)
    if found.version != version:
        raise UserError(f"{folder / version}.json: version: says {found.version}; name the file after it")
    return found
