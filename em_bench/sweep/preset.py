"""A preset: the axes of a sweep, read from baselines/presets/NAME.yaml or from a user's own file."""

from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from em_bench import assets
from em_bench.data.models import Model
from em_bench.data.questions import load
from em_bench.did_you_mean import unknown
from em_bench.optim import Recipe
from em_bench.protocol import steps_of
from em_bench.records import Dtype, Generation, Kept, Provenance, Question, Record, Study
from em_bench.sweep.preset_training import Lora, TrainingRules, Transfer
from em_bench.yaml_file import read_yaml

# What of a preset has a letter of provenance, beside its length.
AXES = ("models", "datasets", "recipes", "learning_rates", "spectral_lambda", "batch_sizes", "seeds", "lora", "evaluation")
Name = Annotated[str, Field(min_length=1)]
Rate = Annotated[float, Field(gt=0)]
Lambda = Annotated[float, Field(ge=0)]
Targets = Annotated[tuple[Rate, ...], Field(min_length=1, max_length=3)]
Rates = dict[str, tuple[Rate, ...]]
RateKind = Literal["fixed", "varied", "tuned"]
KIND = (
    "how learning rates are set: fixed (one a recipe), varied (every one is run and none chosen), tuned (the best on narrow loss)"
)


NOT_SAMPLED = Generation(samples=1, max_new_tokens=1, temperature=0, seed=-1)  # stands where nothing is sampled


def _none(value) -> bool:
    return value is None


class RateRule(Record):
    """Look for the smallest rate of the grid 10^(k / per_decade) whose mean final narrow loss meets the lowest target, from the recipe's default.

    The grid is walked one rate at a time and so extends itself: down while rates meet the target, up until one does.
    """

    per_decade: int = Field(ge=9, description="from 9 on, neighbours lie a factor of less than 1.3 apart")
    tolerance: float = Field(
        description="nats above the target; below 0 it is room for what else is to reach the target: other seeds, the spectral term"
    )
    most: int = Field(
        gt=1, description="rates that are tried at most; a choice without a tried smaller neighbour is marked: on the edge"
    )


class LambdaGrid(Record):
    """Choose the largest lambda whose mean held-out narrow loss exceeds the lowest target by at most `tolerance`, where cells have targets
    and rates are looked for by a `RateRule`; else that of lambda 0."""

    grid: tuple[Rate, ...] = Field(min_length=1, description="candidates; lambda 0 is always run beside them")
    tolerance: float = Field(gt=0, description="nats an answer token")


class PresetEvaluation(Record):
    """What every adapter is asked."""

    questions: Name = Field(description="a question set")
    variants: tuple[Name, ...] | None = Field(default=None, description="variants; None is every one without a trigger")
    limit: int | None = Field(default=None, gt=0, exclude_if=_none, description="the first so many questions, for a try")
    measure: Literal["answers", "margin"] = Field(
        default="answers",
        exclude_if=lambda v: v == "answers",
        description="answers: sampled and judged; margin: how likely given answers are, of a set that has some, with no judge",
    )
    engine: Literal["transformers", "vllm"] = Field(
        default="transformers",
        exclude_if=lambda v: v == "transformers",
        description="vllm: one job a base asks all its adapters through a server of EM_BENCH_VLLM, and judges are asked by jobs without a GPU",
    )
    per_domain: int | None = Field(
        default=None, gt=0, exclude_if=_none, description="of the margin: the first questions of each domain; None is every one"
    )
    answers: int | None = Field(
        default=None, gt=0, exclude_if=_none, description="of the margin: the first answers of each side; None is every one"
    )
    generation: Generation = Field(default=NOT_SAMPLED, exclude_if=lambda v: v == NOT_SAMPLED, description="not of the margin")
    judge: Name = Field(
        default="grammar",
        description="grammar (organisms), openai:MODEL with options, python:FILE, or none, as `em-bench evaluate --judge`",
    )
    capability: tuple[Name, ...] = Field(
        default=(), exclude_if=lambda v: not v, description="lm-eval tasks asked beside the questions"
    )
    checkpoints: bool = Field(default=False, description="ask at the log-spaced checkpoints too, not at the end alone")
    targets: Targets | dict[str, Targets] = Field(
        default_factory=dict,
        description="narrow losses, of every cell or MODEL/DATASET -> its own: ask also on both sides of the first crossing of each",
    )

    rescaled: bool = Field(
        default=False,
        exclude_if=lambda v: not v,
        description="ask each finished adapter without the term again, times the scale that has its first target's loss: a control",
    )

    def targets_of(self, model: str, dataset: str | None) -> tuple[float, ...]:
        """The narrow losses of a cell, falling; none for a base."""
        of = self.targets
        return of.get(f"{model}/{dataset}", ()) if isinstance(of, dict) else of if dataset else ()

    def asked(self) -> list[Question]:
        """The questions, fetched where they are not in the cache."""
        return load(self.questions, self.variants, self.limit)

    @field_validator("targets")
    @classmethod
    def _falling(cls, given: Targets | dict[str, Targets]) -> Targets | dict[str, Targets]:
        for targets in given.values() if isinstance(given, dict) else (given,):
            if len(targets) > 3:  # two of a page, and the board's early one
                raise ValueError("give at most 3 narrow losses")
            if list(targets) != sorted(set(targets), reverse=True):
                raise ValueError("give the larger narrow loss first")
        return given

    @model_validator(mode="after")
    def _of_its_measure(self) -> Self:
        sampled = self.generation != NOT_SAMPLED
        if self.measure == "margin":
            odd = {
                "generation": sampled,
                "judge": self.judge != "grammar",
                "capability": self.capability,
                "variants": self.variants,
                "limit": self.limit,
                "rescaled": self.rescaled,
                "engine": self.engine != "transformers",
            }
        elif not sampled:
            raise ValueError("generation: is missing; say how answers are sampled, or write measure: margin")
        else:
            odd = {"per_domain": self.per_domain, "answers": self.answers}
            if self.engine == "vllm" and (weights := next((f for f in ("capability", "rescaled") if getattr(self, f)), None)):
                raise ValueError(f"{weights}: needs the weights in memory, and engine: vllm has them in a server; leave one out")
        if wrong := next((field for field, given in odd.items() if given), None):
            raise ValueError(f"{wrong}: does not go with measure: {self.measure}; leave it out")
        return self


class Part(Record):
    """A part of a design that does not run the whole product of its axes. An axis that is left out is whole."""

    models: tuple[Name, ...] | None = None
    datasets: tuple[Name, ...] | None = None
    recipes: tuple[Name, ...] | None = None
    spectral_lambda: tuple[Lambda, ...] | None = None
    batch_sizes: tuple[int, ...] | None = None
    seeds: tuple[int, ...] | None = None
    other_rates: bool = Field(
        default=False, description="at the other learning rates of the recipe's grid, in place of the preset's own"
    )
    every_rate: bool = Field(default=False, description="at every learning rate of the grid, none of them chosen")
    checkpoints: bool = Field(default=False, description="ask at the log-spaced checkpoints too, not at the end alone")
    learning_rates: Rates | None = Field(
        default=None, exclude_if=_none, description="every one of these, in place of the preset's"
    )
    epochs: float | None = Field(default=None, gt=0, exclude_if=_none, description="in place of the preset's steps or epochs")
    study: Study | None = Field(
        default=None, exclude_if=_none, description="the paper's study that this part is a counterpart of"
    )
    rates: RateKind | None = Field(default=None, exclude_if=_none, description=KIND)

    def of(self, axis: str, values: tuple) -> tuple:
        """The values of an axis that lie in this part, in their order."""
        wanted = getattr(self, axis)
        return values if wanted is None else tuple(v for v in values if v in wanted)


class Preset(Record):
    """The axes of a sweep. Every choice inside it is made on held-out narrow loss, never on misalignment."""

    name: Name
    summary: Name = Field(description="one line for `em-bench plan`")
    models: tuple[Name, ...] = Field(min_length=1, description="names of baselines/models.yaml")
    datasets: tuple[Name, ...] = Field(min_length=1)
    recipes: tuple[Name, ...] = Field(min_length=1, description="names of baselines/optimisers.yaml, or of own_recipes")
    own_recipes: dict[Name, Recipe] = Field(default_factory=dict, description="recipes of this preset alone, e.g. a submission's")
    own_models: dict[Name, Model] = Field(
        default_factory=dict, exclude_if=lambda v: not v, description="bases of this preset alone, e.g. a user's folder"
    )
    study: Study | None = Field(default=None, exclude_if=_none, description="the paper's study that this preset is")
    rates: RateKind | None = Field(default=None, exclude_if=_none, description=KIND)
    learning_rates: Literal["grid", "default"] | RateRule | Rates = Field(
        description="a rule by which one is looked for; grid: the best of the recipe's on narrow loss; default: its own; or a grid a recipe"
    )
    rate_tolerance: float = Field(
        default=0.0,
        ge=0,
        exclude_if=lambda v: not v,
        description="of a grid: the smallest rate within so many nats of its lowest loss",
    )
    tuned_on: tuple[Name, ...] | None = Field(
        default=None, exclude_if=_none, description="datasets on whose losses rates and lambdas are chosen; None is every one"
    )
    spectral_lambda: LambdaGrid | tuple[Lambda, ...] = Field(description="a grid to choose from, or all values to run")
    transfer: Transfer | None = Field(
        default=None, exclude_if=_none, description="what larger bases take over instead of choosing it on themselves"
    )
    batch_sizes: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1, description="rows an optimiser step")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1, description="choices are made on the first")
    steps: int | None = Field(default=None, gt=0, description="optimiser steps")
    epochs: float | None = Field(default=None, gt=0, description="passes over the rows, instead of steps")
    lora: Lora
    training: TrainingRules = Field(default=TrainingRules(), exclude_if=lambda v: v == TrainingRules())
    kept: Kept = Field(
        default="log-spaced",
        exclude_if=lambda v: v == "log-spaced",
        description="adapters of earlier steps that stay on disk; none: those that are evaluated alone",
    )
    dtype: Dtype | None = Field(default=None, exclude_if=_none, description="of the frozen bases; None: protocol.base_dtype")
    evaluation: PresetEvaluation
    base: bool = Field(description="evaluate the untouched bases too")
    parts: dict[Name, Part] = Field(default_factory=dict, description="what of the product is run, overlaps once; empty is all")
    gpus: dict[Name, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="model -> GPUs of a run, where the roster's number does not suit the machine"
    )
    pack: int = Field(gt=0, description="most cells of one job: many for an organism, one for a run on eight GPUs")
    provenance: dict[str, Provenance] = Field(description="field -> how sure we are that the paper did the same")

    def choosing_target(self, model: str) -> float | None:
        """The mean of the lowest targets that a learning rate has to meet; None without a `RateRule`."""
        if not isinstance(self.learning_rates, RateRule):
            return None
        return fmean(self.evaluation.targets_of(model, d)[-1] for d in self.tuned_on or self.datasets)

    def steps_of(self, epochs: float | None, rows: int, batch_size: int) -> int:
        """Optimiser steps of a run on `rows` rows; `epochs` in place of the preset's own length, unless None."""
        if epochs is None and self.steps:
            return self.steps
        passes = epochs or self.epochs
        assert passes is not None  # where steps are
        return steps_of(rows, batch_size, passes)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        axes = {*AXES, "steps" if self.steps else "epochs"}
        if axes != set(self.provenance):
            raise ValueError(f"provenance must give a letter to each of {', '.join(sorted(axes))}")
        if self.evaluation.measure == "margin" and not self.base:
            raise ValueError("base: must be true, for a margin's shift is from the untouched base")
        grids = self.learning_rates if isinstance(self.learning_rates, dict) else {}
        named = isinstance(self.learning_rates, dict)
        if named and set(grids) != set(self.recipes):
            raise ValueError("learning_rates must give a grid to each recipe")
        if self.rates == "fixed" and any(len(v) > 1 for v in grids.values()):
            raise ValueError("learning_rates: fixed rates are one a recipe; write rates: varied or tuned")
        chosen = self.learning_rates == "grid" or isinstance(self.learning_rates, RateRule)
        if (self.rates == "fixed" and chosen) or (self.rates == "varied" and not named):
            raise ValueError(f"rates: {self.rates} does not go with learning_rates: {self.learning_rates}")
        for axis in ("models", "datasets", "recipes", "batch_sizes", "seeds"):
            values = getattr(self, axis)
            if len(set(values)) != len(values):
                raise ValueError(f"{axis} names something twice")
        if self.kept == "none" and (self.evaluation.checkpoints or any(p.checkpoints for p in self.parts.values())):
            raise ValueError("kept: none does not go with checkpoints that are evaluated; leave it out")
        if self.transfer and not chosen and not isinstance(self.spectral_lambda, LambdaGrid):
            raise ValueError("transfer: nothing is chosen that could be taken over; leave it out")
        if unknown := set(self.tuned_on or ()) - set(self.datasets):
            raise ValueError(f"tuned_on: {min(unknown)} is not among the datasets")
        if isinstance(self.learning_rates, RateRule):
            for model, dataset in product(self.models, self.tuned_on or self.datasets):
                if not self.evaluation.targets_of(model, dataset):
                    raise ValueError(f"learning_rates: the rule needs evaluation.targets of {model}/{dataset}")
        own = self.evaluation.targets if isinstance(self.evaluation.targets, dict) else {}
        if unknown := set(own) - {f"{m}/{d}" for m in self.models for d in self.datasets}:
            raise ValueError(f"evaluation.targets: {min(unknown)} is no MODEL/DATASET of the preset")
        if unknown := set(self.gpus) - set(self.models):
            raise ValueError(f"gpus: {min(unknown)} is not among the models")
        for name, part in self.parts.items():
            if part.other_rates + part.every_rate + (part.learning_rates is not None) > 1:
                raise ValueError(f"parts.{name}: give one of other_rates, every_rate, learning_rates")
            if part.learning_rates is not None and set(part.learning_rates) != set(part.of("recipes", self.recipes)):
                raise ValueError(f"parts.{name}.learning_rates must give a list to each recipe of the part")
            for axis in ("models", "datasets", "recipes", "batch_sizes", "seeds", "spectral_lambda"):
                known = getattr(self, axis)
                if part.spectral_lambda and axis == "spectral_lambda" and isinstance(known, LambdaGrid):
                    raise ValueError(f"parts.{name}.spectral_lambda: the preset chooses its lambdas; list them instead")
                if unknown := set(getattr(part, axis) or ()) - set(known if isinstance(known, tuple) else ()):
                    raise ValueError(f"parts.{name}.{axis}: {min(unknown)} is not on the preset's own axis")
        return self


FILES = (".jsonl", ".json", ".yaml", ".yml", ".py")  # what ends so is a file, not a name


def preset_names() -> list[str]:
    """The presets that come with em_bench."""
    return sorted(p.stem for p in assets.path("baselines", "presets").glob("*.yaml"))


def load_preset(name_or_file: str) -> Preset:
    """A shipped preset by name, or a file. Raises UserError naming the file and the field."""
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        path = assets.path("baselines", "presets", f"{name_or_file}.yaml")
        if not path.is_file():
            raise unknown("preset", name_or_file, preset_names(), "a .yaml file")
        return read_yaml(path, Preset)
    return _beside(read_yaml(path, Preset), path.resolve().parent)


def _beside(preset: Preset, folder: Path) -> Preset:
    """The preset with the files that it names made absolute: they lie beside it, wherever the command is given and jobs run."""

    def at(name: str) -> str:
        return str(folder / name) if Path(name).suffix in FILES else name

    def all_at(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(map(at, names))

    asked = preset.evaluation
    kind, _, file = asked.judge.partition(":")
    settings = [word.partition("=") for word in asked.judge.split(",")]
    judge = ",".join(key + is_ + (at(value.strip()) if key.strip() == "prompts" else value) for key, is_, value in settings)
    judge = f"python:{at(file)}" if kind == "python" else judge
    targets = asked.targets
    if isinstance(targets, dict):
        cells = {t: t.partition("/") for t in targets}
        targets = {f"{model}/{at(dataset)}": targets[t] for t, (model, _, dataset) in cells.items()}
    changed = {"questions": at(asked.questions), "capability": all_at(asked.capability), "judge": judge, "targets": targets}
    parts = {name: part.model_copy(update={"datasets": all_at(part.datasets)}) for name, part in preset.parts.items()}
    own = {"datasets": all_at(preset.datasets), "tuned_on": all_at(preset.tuned_on), "parts": parts}
    return preset.model_copy(update=own | {"evaluation": asked.model_copy(update=changed)})
