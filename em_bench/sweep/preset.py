"""A preset: the axes of a sweep, read from baselines/presets/NAME.yaml or from a user's own file."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from em_bench import assets
from em_bench.data.models import Model, folder_model
from em_bench.data.questions import load
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.optim import Recipe
from em_bench.protocol import GRADIENT_CLIP, MAX_LENGTH, steps_of
from em_bench.records import Dtype, Generation, Provenance, Question, Record, Study
from em_bench.yaml_file import read_yaml

# What of a preset has a letter of provenance, beside its length.
AXES = ("models", "datasets", "recipes", "learning_rates", "spectral_lambda", "batch_sizes", "seeds", "lora", "evaluation")
Name = Annotated[str, Field(min_length=1)]
Rate = Annotated[float, Field(gt=0)]
Lambda = Annotated[float, Field(ge=0)]
Rates = dict[str, tuple[Rate, ...]]
RateKind = Literal["fixed", "varied", "tuned"]
KIND = (
    "how learning rates are set: fixed (one a recipe), varied (every one is run and none chosen), tuned (the best on narrow loss)"
)


NOT_SAMPLED = Generation(samples=1, max_new_tokens=1, temperature=0, seed=-1)  # stands where nothing is sampled


def _none(value) -> bool:
    return value is None


class LambdaGrid(Record):
    """Choose the largest lambda whose mean held-out narrow loss exceeds that of lambda 0 by at most `tolerance`."""

    grid: tuple[Rate, ...] = Field(min_length=1, description="candidates; lambda 0 is always run beside them")
    tolerance: float = Field(gt=0, description="nats an answer token")


class Lora(Record):
    """The adapter, on the seven projections of every layer."""

    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)


class TrainingRules(Record):
    """What a preset may set of a run's schedule and limits; what is left out is the protocol's."""

    warmup_steps: int | None = Field(default=None, ge=0, description="None: five, or none where that is over a tenth of the run")
    gradient_clip: float = Field(default=GRADIENT_CLIP, gt=0, description="largest global gradient norm")
    max_length: int = Field(default=MAX_LENGTH, gt=0, description="tokens a row")


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
    targets: dict[str, float] = Field(
        default_factory=dict,
        description="MODEL/DATASET -> narrow loss: ask also at the first checkpoint that reaches it; the margin on both sides of it",
    )

    def asked(self) -> list[Question]:
        """The questions, fetched where they are not in the cache."""
        return load(self.questions, self.variants, self.limit)

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
            }
        elif not sampled:
            raise ValueError("generation: is missing; say how answers are sampled, or write measure: margin")
        else:
            odd = {"per_domain": self.per_domain, "answers": self.answers}
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
    learning_rates: Literal["grid", "default"] | Rates = Field(
        description="grid: the best of the recipe's grid on narrow loss; default: the recipe's own; or a grid a recipe"
    )
    spectral_lambda: LambdaGrid | tuple[Lambda, ...] = Field(description="a grid to choose from, or all values to run")
    batch_sizes: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1, description="rows an optimiser step")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1, description="choices are made on the first")
    steps: int | None = Field(default=None, gt=0, description="optimiser steps")
    epochs: float | None = Field(default=None, gt=0, description="passes over the rows, instead of steps")
    lora: Lora
    training: TrainingRules = Field(default=TrainingRules(), exclude_if=lambda v: v == TrainingRules())
    dtype: Dtype | None = Field(default=None, exclude_if=_none, description="of the frozen bases; None: protocol.base_dtype")
    evaluation: PresetEvaluation
    base: bool = Field(description="evaluate the untouched bases too")
    parts: dict[Name, Part] = Field(default_factory=dict, description="what of the product is run, overlaps once; empty is all")
    gpus: dict[Name, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="model -> GPUs of a run, where the roster's number does not suit the machine"
    )
    pack: int = Field(gt=0, description="most cells of one job: many for an organism, one for a run on eight GPUs")
    provenance: dict[str, Provenance] = Field(description="field -> how sure we are that the paper did the same")

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
        if (self.rates == "fixed" and self.learning_rates == "grid") or (self.rates == "varied" and not named):
            raise ValueError(f"rates: {self.rates} does not go with learning_rates: {self.learning_rates}")
        for axis in ("models", "datasets", "recipes", "batch_sizes", "seeds"):
            values = getattr(self, axis)
            if len(set(values)) != len(values):
                raise ValueError(f"{axis} names something twice")
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
    targets = {f"{model}/{at(dataset)}": loss for t, loss in asked.targets.items() for model, _, dataset in [t.partition("/")]}
    changed = {"questions": at(asked.questions), "capability": all_at(asked.capability), "judge": judge, "targets": targets}
    parts = {name: part.model_copy(update={"datasets": all_at(part.datasets)}) for name, part in preset.parts.items()}
    return preset.model_copy(
        update={"datasets": all_at(preset.datasets), "parts": parts, "evaluation": asked.model_copy(update=changed)}
    )


def with_judge(preset: Preset, judge: str | None) -> Preset:
    """The preset with another judge; None leaves its own. Raises UserError where it has nothing to judge."""
    if judge is None:
        return preset
    if preset.evaluation.measure == "margin":
        raise UserError(f"--judge {judge}: preset {preset.name} measures the margin, which needs none; leave it out")
    return preset.model_copy(update={"evaluation": preset.evaluation.model_copy(update={"judge": judge})})


def with_seeds(preset: Preset, seeds: int | None) -> Preset:
    """The preset, every part of it, with the seeds 0 to `seeds` - 1 instead of its own; None leaves its own."""
    if seeds is None:
        return preset
    parts = {name: part.model_copy(update={"seeds": None}) for name, part in preset.parts.items()}
    return preset.model_copy(update={"seeds": tuple(range(seeds)), "parts": parts})


def with_model(preset: Preset, model: str | None) -> Preset:
    """The preset with another base in the place of its one: a roster name, or the folder of one's own model; None leaves its own.

    Targets of narrow loss are of the preset's base and are left out, as are its GPUs. Raises UserError where the preset has several.
    """
    if model is None:
        return preset
    if len(preset.models) > 1:
        raise UserError(
            f"--model {model}: preset {preset.name} has {len(preset.models)} bases, and it replaces one; take another preset"
        )
    own = {}
    if Path(model).is_dir():
        own, model = {(folder := Path(model).resolve()).name: folder_model(folder)}, folder.name
    parts = {name: part.model_copy(update={"models": None}) for name, part in preset.parts.items()}
    evaluation = preset.evaluation.model_copy(update={"targets": {}})
    changed = {"models": (model,), "parts": parts, "own_models": own, "evaluation": evaluation, "gpus": {}}
    return preset.model_copy(update=changed if model not in preset.models else {})
