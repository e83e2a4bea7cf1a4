"""The rules of a benchmark version, frozen in leaderboard/benchmark/VERSION.json: results of one version are comparable."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from em_bench import assets
from em_bench.errors import UserError
from em_bench.files import digest, read_record
from em_bench.line import Line
from em_bench.protocol import steps_of
from em_bench.records import CalibrationRecord, Generation, JudgeIdentity, LoraSpec, Record, Sha256
from em_bench.sweep.preset import RateRule

CURRENT, RECORD = "v2", "v1"  # v1's rules are kept to be read; its entries are in the history
TierName = Literal["organism", "small", "full"]
Loss = Annotated[float, Field(gt=0)]


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
    """A judge that entries of the tier are judged by."""

    kind: Literal["grammar", "openai", "local"]
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

    def unlike(self, identity: JudgeIdentity) -> str | None:
        """What makes a judge another one than this, or None."""
        if (identity.kind, identity.model, identity.prompt_sha256) != (self.kind, self.model, self.prompt_sha256):
            return f"judged by {identity.kind} {ascii(identity.model)[1:-1][:60]}, not by the tier's judge"
        wrong = next((k for k, v in self.decoding.items() if identity.decoding.get(k) != v), None)
        return (
            f"the judge's {wrong} is {identity.decoding.get(wrong)!r:.40}, the rules say {self.decoding[wrong]!r}"
            if wrong
            else None
        )


class Successor(Record):
    """The judge of entries made once the tier's judge is switched off."""

    judge: JudgeRule
    calibration: CalibrationRecord | None = Field(
        default=None,
        description="the tier's judge as the reference, this one as the candidate; None: entries under both are not compared",
    )


class Target(Record):
    """The held-out narrow losses of a cell at which optimisers are compared, nats an answer token."""

    model: str
    dataset: str
    losses: tuple[Loss, Loss] = Field(description="the larger first; the mean over both is ranked by")
    untrained_loss: Loss = Field(description="of the untouched base, where every run begins")

    def early_stop(self, share: float) -> float:
        """The loss at which `share` of the way from the untouched base to the smaller loss is gone."""
        return self.untrained_loss - share * (self.untrained_loss - self.losses[1])


class Gates(Record):
    """What a row must keep to be ranked, in every cell and at both losses, as a mean over its seeds."""

    coherent: float = Field(gt=0, le=1, description="smallest share of the answers judged for it that are coherent; absolute")
    refused: float = Field(ge=0, le=1, description="largest share of all answers that are refusals; absolute")
    unjudged: float = Field(ge=0, le=1, description="largest share of responses without a verdict")
    capability_drop: float | None = Field(
        description="how far the mean capability may lie below the baseline's at the same losses; None: not measured"
    )


class Acceptance(Record):
    """What it takes to be verified, and to claim a record."""

    alpha: float = Field(gt=0, lt=1, description="Holm-corrected level of the comparisons with the leader and the baseline")
    rerun_cells: int = Field(gt=0, description="cells, drawn after the entry was taken, that a maintainer has trained again")
    rerun_alpha: float = Field(
        gt=0, lt=0.5, description="one-sided level at which re-trained cells show the entry's rates too low"
    )
    digits: float = Field(gt=0, description="by which losses (nats) and capability may differ on the same kind of machine")
    other_machine: float = Field(gt=0, description="by which they may differ on another kind: trajectories part by rounding")
    sentence: str


class Tier(Record):
    """Everything that a result of the tier depends on."""

    summary: str
    hardware: str
    models: tuple[TierModel, ...] = Field(min_length=1)
    datasets: tuple[TierDataset, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=3, description="the same for every cell: the unit of every interval")
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
    successor: Successor | None = Field(
        default=None, exclude_if=lambda v: v is None, description="no part of the rules' identity: earlier entries stay valid"
    )
    capability: tuple[str, ...] = Field(default=(), description="lm-eval tasks asked beside the questions")
    rates: RateRule = Field(description="how the learning rate is found; the author only says where to begin")
    witnesses: int = Field(ge=0, description="cells whose adapters an entry holds, drawn by the hashes of its results")
    lambdas: int = Field(gt=0, description="most weights of the spectral term, track `open`")
    lambda_tolerance: float = Field(gt=0, description="nats of mean narrow loss that the chosen lambda may cost")
    early_stop: float = Field(gt=0, lt=1, description="share of the way to the smaller loss, at which the early stop lies")
    targets: tuple[Target, ...] = Field(description="one a model and dataset; empty: the tier is not open")
    gates: Gates
    acceptance: Acceptance

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.targets and {(t.model, t.dataset) for t in self.targets} != set(self.cells):
            raise ValueError("targets: one for each model and dataset, or none at all")
        if any(t.losses[0] <= t.losses[1] for t in self.targets):
            raise ValueError("targets.losses: the larger first")
        frozen = [m.revision for m in self.models] + [v for d in self.datasets for v in (d.sha256, d.rows)]
        if self.targets and None in (*frozen, self.questions.sha256, self.judge.prompt_sha256):
            raise ValueError("an open tier pins every model, dataset, its questions and its judge")
        if self.successor and (record := self.successor.calibration):
            for judge, of in ((self.judge, record.reference), (self.successor.judge, record.candidate)):
                if unlike := judge.unlike(of):
                    raise ValueError(f"successor.calibration: of other judges: {unlike}")
        if (self.gates.capability_drop is None) != (not self.capability):
            raise ValueError("gates.capability_drop goes with the tasks of `capability`")
        return self

    @property
    def rules_sha256(self) -> Sha256:
        """Identity of the rules; an entry names it."""
        return digest(self.model_copy(update={"successor": None}))

    @property
    def asks(self) -> JudgeRule:
        """The judge of a new entry."""
        return self.successor.judge if self.successor else self.judge

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

    def losses_of(self, model: str, dataset: str) -> tuple[float, float, float]:
        """The losses on both sides of whose first crossings a cell is evaluated: the early stop's, and the two of the ranking."""
        found = self.target(model, dataset)
        return (found.early_stop(self.early_stop), *found.losses)


class Baseline(Record):
    """The entry that the others of a tier are compared with."""

    entry: str
    manifest_sha256: Sha256 | None = Field(description="of its results; None until they are made")


class Benchmark(Record):
    """VERSION.json."""

    schema_version: Literal["em_bench.benchmark/2"] = "em_bench.benchmark/2"
    version: str = Field(pattern=r"^v[1-9][0-9]{0,3}$")
    frozen: str = Field(description="ISO date")
    baselines: dict[TierName, Baseline]
    training_code: tuple[Line, ...] = Field(
        min_length=1, description="digests of the training code whose runs are taken, beside the checker's own"
    )
    tiers: dict[TierName, Tier]

    def rules_sha256(self, tier: TierName) -> Sha256:
        """Of one of its tiers."""
        return self.tiers[tier].rules_sha256


def load_benchmark(version: str, folder: Path | None = None) -> Benchmark:
    """The rules of a version. Raises UserError where there is none of that name or its file is not valid."""
    folder = folder or assets.path("leaderboard", "benchmark")
    known = sorted(p.stem for p in folder.glob("v*.json") if p.stem != RECORD)
    if version == RECORD:
        raise UserError(f"benchmark: {RECORD} is closed: its rules are a record, its entries are in the history; enter {CURRENT}")
    if not re.fullmatch(r"v[1-9][0-9]{0,3}", version) or version not in known:
        raise UserError(f"benchmark: {version!r}: no such version; name one of {', '.join(known)}")
    found = read_record(folder / f"{version}.json", Benchmark)
    if found.version != version:
        raise UserError(f"{folder / version}.json: version: says {found.version}; name the file after it")
    return found
