"""From a preset to its plan: which jobs, in which order, with which key. Nothing heavy is imported or built.

For each model, recipe and batch size there is one chain:
    base -> lr (train the grid at the smallest lambda, choose) -> lambda (train the grid at that rate, choose) -> train (what is left)
         -> evaluate
With engine: vllm one job a base, answer-MODEL, has all answers after the trainings of all chains; evaluations then judge, without a GPU.
A link that has nothing to do is left out, and one with more cells than a pack is split.
"""

from collections.abc import Collection, Sequence
from itertools import product
from typing import NamedTuple

from em_bench.code_digest import code_digest
from em_bench.data.models import Model, base_path, base_ref, load_models
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.files import digest
from em_bench.optim import load_recipes
from em_bench.organism import grammar_sha256
from em_bench.records import Study
from em_bench.sweep.job_time import Assumptions, estimate, gpus_of, with_shared_loads
from em_bench.sweep.jobs import ENTRIES, Cell, Job, Plan
from em_bench.sweep.preset import LambdaGrid, Part, Preset, RateRule
from em_bench.sweep.source_info import asked_content, source


def make_plan(preset: Preset, assume: Assumptions | None = None) -> Plan:
    """The jobs of a preset, with estimates that rest on `assume`. Nothing is fetched.

    Raises UserError for a name that does not exist, an unreadable file, and a judge that cannot judge the models.
    """
    planner = _Planner(preset, assume or Assumptions())
    return Plan(
        preset=preset,
        preset_sha256=digest(preset),
        models={name: planner.models[name] for name in preset.models},
        recipes={name: planner.recipes[name] for name in preset.recipes},
        jobs=tuple(planner.jobs()),
    )


class _Pack(NamedTuple):
    """Cells of one evaluation."""

    id: str
    needs: list[Job]
    cells: list[Cell]
    checkpointed: Sequence[Cell] = ()
    studies: dict[str, tuple[Study, ...]] | None = None


class _Planner:
    def __init__(self, preset: Preset, assume: Assumptions):
        self.preset, self.assume = preset, assume
        self.recipes = load_recipes() | preset.own_recipes
        self.models = load_models() | preset.own_models
        for kind, names, known in (("models", preset.models, self.models), ("recipes", preset.recipes, self.recipes)):
            for name in names:
                if name not in known:
                    raise UserError(f"preset {preset.name}: {kind}: {unknown(kind.removesuffix('s'), name, known)}")
        self.datasets = {name: source(name).identity for name in preset.datasets}
        _check_judge(preset, self.models)
        self.content = asked_content(preset.evaluation)
        self.made: dict[str, Job] = {}
        self.packs: list[_Pack] = []  # of the model at hand, to be evaluated

    def jobs(self) -> list[Job]:
        # Who gives comes before who takes.
        for model in sorted(self.preset.models, key=lambda m: self.donor(m) is not None):
            base = self.add(f"base-{model}", "base", [], [], self.identity(model))
            self.packs = [_Pack(f"evaluate-base-{model}", [base], [Cell(model=model)])] if self.preset.base else []
            for recipe, batch_size in product(self.preset.recipes, self.preset.batch_sizes):
                self.chain(base, model, recipe, batch_size)
            self.evaluations(model)
        self.add("report", "report", [j for j in self.made.values() if j.kind == "evaluate"], [])
        return with_shared_loads(self.made.values())

    def evaluations(self, model: str) -> None:
        """The evaluations of all chains of a model, and with engine: vllm the job before them that has the answers."""
        ahead = []
        if self.preset.evaluation.engine == "vllm":
            needs = {job.id: job for p in self.packs for job in p.needs}
            cells = [c for p in self.packs for c in p.cells]
            asked = [c for p in self.packs for c in p.checkpointed]
            ahead = [self.add(f"answer-{model}", "answer", [*needs.values()], cells, checkpointed=asked)]
        for p in self.packs:
            needs_base = p.cells[0].recipe and self.preset.evaluation.measure == "margin" and self.preset.base
            # Every adapter's shift is from the base's margin: measured once and kept.
            of_base = [self.made[f"evaluate-base-{model}"]] if needs_base else []
            self.add(p.id, "evaluate", [*p.needs, *of_base, *ahead], p.cells, checkpointed=p.checkpointed, studies=p.studies)

    def chain(self, base: Job, model: str, recipe: str, batch_size: int) -> None:
        """The jobs of one model, recipe and batch size."""
        preset, lambdas = self.preset, self.preset.spectral_lambda
        of_chain = f"-{recipe}" + (f"-b{batch_size}" if len(preset.batch_sizes) > 1 else "")
        name = model + of_chain
        first, needs = preset.seeds[:1], [base]
        parts = [p for p in (preset.parts or {"all": Part()}).values() if self.holds(p, model, recipe, batch_size)]
        if not parts:
            return

        def cells(rates, values, seeds, datasets=preset.datasets, epochs=None) -> list[Cell]:
            settings = product(rates, values, datasets, seeds)
            fixed = {"model": model, "recipe": recipe, "batch_size": batch_size, "epochs": epochs}
            return [Cell(dataset=d, learning_rate=r, spectral_lambda=v, seed=s, **fixed) for r, v, d, s in settings]

        rates, walked = self.rates(model, recipe), isinstance(preset.learning_rates, RateRule)
        rate = rates[0] if len(rates) == 1 and not walked else "chosen"
        tuned_on = preset.tuned_on or preset.datasets
        # A rate is looked for with the term only where it is never off.
        weakest = 0.0 if isinstance(lambdas, LambdaGrid) else min(lambdas)
        trained: set[Cell] = set()
        wanted = [0.0, "chosen"] if isinstance(lambdas, LambdaGrid) else list(lambdas)
        if donor := self.donor(model):
            chosen = [job for kind in ("lr", "lambda") if (job := self.made.get(f"{kind}-{donor}{of_chain}"))]
            if not chosen:
                raise UserError(
                    f"preset {preset.name}: transfer: {donor} chooses nothing for {recipe} at batch size {batch_size}"
                )
            needs = [*needs, *chosen]
        elif walked:
            needs = [*needs, self.add(f"lr-{name}", "lr", needs, cells([rate], [weakest], first, tuned_on))]
            trained |= set(cells([rate], [weakest], first, tuned_on))
        elif len(rates) > 1 and (isinstance(lambdas, LambdaGrid) or not all(p.every_rate for p in parts)):
            needs = [*needs, self.stage(f"lr-{name}", "lr", needs, cells(rates, [weakest], first, tuned_on))]
            trained |= set(cells([rate, *rates], [weakest], first, tuned_on))
        if isinstance(lambdas, LambdaGrid) and not donor:
            candidates = cells([rate], [0.0, *lambdas.grid], first, tuned_on)
            needs = [*needs, self.stage(f"lambda-{name}", "lambda", needs, candidates, trained)]
            trained |= set(cells([rate], wanted, first, tuned_on))
        evaluated: dict[Cell, bool] = {}  # whether at its checkpoints too
        studies: dict[str, set[Study]] = {}
        for part in parts:
            asked = self.asked(part, model, recipe, rate)
            values = wanted if isinstance(lambdas, LambdaGrid) else part.of("spectral_lambda", lambdas)
            datasets = part.of("datasets", preset.datasets)
            for cell in cells(asked, values, part.of("seeds", preset.seeds), datasets, part.epochs):
                evaluated[cell] = evaluated.get(cell, preset.evaluation.checkpoints) or part.checkpoints
                studies.setdefault(cell.name, set()).update({s for s in (part.study or preset.study,) if s})
        left = [c for c in evaluated if c not in trained]
        trainers: dict[Cell, Job] = {}
        for i, pack in enumerate(_packs(left, preset.pack), 1):
            trainers |= dict.fromkeys(pack, self.add(f"train-{name}-{i}", "train", needs, pack))
        packs = _packs(list(evaluated), preset.pack)
        for i, pack in enumerate(packs, 1):
            job_id = f"evaluate-{name}" + (f"-{i}" if len(packs) > 1 else "")
            # The trainings of its own cells alone: one that fails holds up no other, and links grow as jobs do.
            trained_in = {job.id: job for cell in pack if (job := trainers.get(cell))}
            needed = [*needs, *trained_in.values()]
            of = {c.name: tuple(sorted(s)) for c in pack if (s := studies[c.name])}
            self.packs.append(_Pack(job_id, needed, pack, [c for c in pack if evaluated[c]], of))

    def donor(self, model: str) -> str | None:
        """Whose rates and lambdas a base takes over."""
        transfer = self.preset.transfer
        return transfer.donor(model, {m: self.models[m] for m in self.preset.models}) if transfer else None

    @staticmethod
    def holds(part: Part, model: str, recipe: str, batch_size: int) -> bool:
        """Whether a part has cells of this chain."""
        axes = {"models": model, "recipes": recipe, "batch_sizes": batch_size}
        return all(part.of(axis, (value,)) for axis, value in axes.items())

    def grid(self, model: str, recipe: str) -> tuple[float, ...]:
        """Every learning rate that the recipe names for that class of model."""
        return tuple(self.recipes[recipe].learning_rates[self.models[model].recipe_class].grid)

    def asked(self, part: Part, model: str, recipe: str, rate: float | str) -> Sequence[float | str]:
        """The learning rates that a part evaluates, `rate` being the preset's own."""
        if part.learning_rates is not None:
            return part.learning_rates[recipe]
        if part.every_rate:
            named = isinstance(self.preset.learning_rates, dict)
            return self.rates(model, recipe) if named else self.grid(model, recipe)
        return [r for r in self.grid(model, recipe) if r != rate] if part.other_rates else [rate]

    def rates(self, model: str, recipe: str) -> tuple[float, ...]:
        """The candidate learning rates; where one is looked for, the recipe's default alone."""
        if isinstance(self.preset.learning_rates, dict):
            return self.preset.learning_rates[recipe]
        if self.preset.learning_rates == "default" or isinstance(self.preset.learning_rates, RateRule):
            return (self.recipes[recipe].learning_rates[self.models[model].recipe_class].default,)
        return self.grid(model, recipe)

    def stage(self, job_id: str, kind: str, needs: list[Job], cells: list[Cell], trained: Collection[Cell] = ()) -> Job:
        """A job that trains candidates and chooses; what exceeds a pack is trained by jobs before it, but for the `trained`."""
        packs = _packs([c for c in cells if c not in trained], self.preset.pack)
        if len(packs) > 1:
            needs = [*needs, *(self.add(f"train-{job_id}-{i}", "train", needs, pack) for i, pack in enumerate(packs, 1))]
        return self.add(job_id, kind, needs, cells, trained_before=len(packs) > 1)

    def add(
        self,
        job_id: str,
        kind: str,
        needs: list[Job],
        cells: list[Cell],
        extra=None,
        trained_before: bool = False,
        checkpointed: Sequence[Cell] = (),
        studies: dict[str, tuple[Study, ...]] | None = None,
    ) -> Job:
        """Make a job; its key covers its cells, all that they name, the code, and the keys of the jobs it needs."""
        preset = self.preset
        code = code_digest(*ENTRIES[kind])
        determines: dict = {"kind": kind, "needs": [j.key for j in needs], "cells": cells, "extra": extra, "code": code}
        if kind in ("lr", "lambda", "train"):
            determines["recipe"] = self.recipes[cells[0].settings().recipe]
            determines["datasets"] = [self.datasets[c.settings().dataset] for c in cells]
            targets = [preset.evaluation.targets_of(c.model, c.settings().dataset) for c in cells]
            determines["length"] = [preset.steps, preset.epochs, preset.lora, preset.training, preset.dtype, targets]
            determines["kept"] = [preset.kept] if preset.kept != "log-spaced" else []
            determines["rule"] = [
                *([preset.transfer] if preset.transfer else []),
                preset.learning_rates,
                preset.rate_tolerance,
                preset.spectral_lambda if kind == "lambda" else None,
            ]
        if kind in ("answer", "evaluate"):
            determines["evaluation"] = [preset.evaluation, preset.dtype, list(checkpointed), self.content]
        if kind == "report":
            determines["preset"] = preset
        models = {c.model for c in cells} or {job_id.removeprefix("base-")}
        model = self.models.get(min(models))
        no_gpu = trained_before or (kind == "evaluate" and preset.evaluation.engine == "vllm")
        gpus = gpus_of(kind, model, preset.gpus.get(min(models)), no_gpu) if model else 0
        parts = estimate(preset, kind, cells, model, gpus, trained_before, len(checkpointed), self.assume)
        job = Job(
            id=job_id,
            kind=kind,
            needs=tuple(j.id for j in needs),
            cells=tuple(cells),
            checkpointed=tuple(checkpointed),
            studies=studies or {},
            key=digest(_plain(determines))[:16],
            code=code,
            estimate_s=sum(parts.values()),
            parts={**parts},
            gpus=gpus,
        )
        self.made[job_id] = job
        return job

    def identity(self, model: str) -> list[str | None]:
        """What names a base before it is there. An organism's own digest would take torch to learn; its sources do not."""
        known = self.models[model]
        if known.source == "folder":
            at = known.path if model in self.preset.own_models and known.path else model
            return [base_ref(at, base_path(at)).revision]
        if known.package:
            return [known.package.digest]
        return [known.hub_id, known.revision] if known.source == "hub" else [str(known.organism), grammar_sha256()]


def _check_judge(preset: Preset, models: dict[str, Model]) -> None:
    for name in preset.models:
        margin = preset.evaluation.measure == "margin"
        if models[name].source != "organism" and preset.evaluation.judge == "grammar" and not margin:
            raise UserError(
                f"preset {preset.name}: evaluation.judge: the grammar grades organisms only, and {name} is none; name openai:MODEL"
            )


def _packs(cells: list[Cell], size: int) -> list[list[Cell]]:
    return [cells[i : i + size] for i in range(0, len(cells), size)]


def _plain(value):
    """Nested records as what JSON can hold."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
