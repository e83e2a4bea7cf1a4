"""The jobs that train: their cells, and of lr and lambda jobs the choice among them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from em_bench.data import data_ref
from em_bench.data.models import Model, base_path, base_ref
from em_bench.machine import fast_bfloat16
from em_bench.protocol import base_dtype
from em_bench.records import Choice, LoraSpec, RunSpec
from em_bench.sweep.job_progress import Progress
from em_bench.sweep.jobs import Cell, Choices, JobDone, JobOrder
from em_bench.sweep.preset import LambdaGrid, Preset, RateRule
from em_bench.sweep.selection import choose_lambda, choose_learning_rate, walk_rates
from em_bench.training import read_run, run_spec, train
from em_bench.training.base import KEPT
from em_bench.training.execution_options import Options
from em_bench.training.loop import TrainingFailed
from em_bench.training.spec import PROJECTIONS


def spec_of(order: JobOrder, cell: Cell, base_dir: Path) -> RunSpec:
    """The run of a resolved cell."""
    preset, settings, recipe = order.preset, cell.settings(), order.recipe
    rate, spectral_lambda = settings.learning_rate, settings.spectral_lambda
    assert recipe is not None and not isinstance(rate, str) and not isinstance(spectral_lambda, str)
    data = data_ref(settings.dataset)
    return run_spec(
        base_ref(order.base, base_dir),
        data.model_copy(update={"sha256": order.inputs.datasets[settings.dataset]}),
        recipe.resolve(rate),
        spectral_lambda=spectral_lambda,
        lora=LoraSpec(
            rank=preset.lora.rank, alpha=preset.lora.alpha, targets=PROJECTIONS, stored=stored_as(preset, order.roster_model())
        ),
        kept=preset.kept,
        batch_size=settings.batch_size,
        steps=preset.steps_of(cell.epochs, data.rows, settings.batch_size),
        seed=settings.seed,
        targets=preset.evaluation.targets_of(cell.model, settings.dataset),
        dtype=preset.dtype or base_dtype(order.roster_model().source, fast_bfloat16()),
        **preset.training.model_dump(),
    )


def stored_as(preset: Preset, base: Model) -> Literal["float32", "bfloat16"]:
    """How the adapters of a base lie on disk."""
    above = preset.lora.bfloat16_above
    return "bfloat16" if above is not None and (base.parameters or 0) > above else "float32"


def train_cells(done: JobDone, order: JobOrder, choices: Choices, work: Path, progress: Progress) -> JobDone:
    """Train the job's cells. One that diverges is a gap: as a candidate it is out, and an evaluation will miss it by name."""
    training = _Training(order, choices, work, progress)
    choice, loaded = None, KEPT.loads
    if order.job.kind == "train":
        training.losses(order.job.cells)
    elif order.job.kind == "lambda":
        choice = _lambda(order, training)
    else:
        choice = _rate(order, training)
    return done.model_copy(update={"runs": training.runs, "gaps": training.gaps, "choice": choice, "loads": KEPT.loads - loaded})


class _Training:
    """Trains cells of a job and keeps their runs and gaps. A run that is there already is not made again."""

    def __init__(self, order: JobOrder, choices: Choices, work: Path, progress: Progress):
        self.order, self.choices, self.work, self.progress = order, choices, work, progress
        self.runs: dict[str, str] = {}
        self.gaps: dict[str, str] = {}
        known = order.roster_model()
        self.options = Options(
            gradient_checkpointing=known.gradient_checkpointing,
            shard=known.shard and order.job.gpus > 1,
        )

    def losses(self, cells: Sequence[Cell]) -> list[float]:
        """Train cells; the final narrow losses of those that finished."""
        found = []
        for cell in cells:
            self.progress.begin(cell.name)
            settled = cell.resolved(self.choices)
            if settled is None:
                self.gaps[cell.name] = "nothing met the rule by which it is chosen"
            else:
                found += self._train(settled, cell.name)
            self.progress.end()
        return found

    def _train(self, settled: Cell, name: str) -> list[float]:
        base_dir = base_path(self.order.base, progress=False)
        spec = spec_of(self.order, settled, base_dir)
        try:
            folder = train(
                spec,
                base_dir,
                self.work / "runs",
                options=self.options,
                progress=lambda r: self.progress.update(loss=r.loss),
                say=print,
                kept=KEPT,
            )
        except TrainingFailed as e:
            self.gaps[name] = str(e)
            print(f"{name}: {e}", flush=True)
            return []
        self.runs[settled.name] = folder.name
        return [read_run(folder).narrow_loss]


def _rate(order: JobOrder, training: _Training) -> Choice:
    preset, cells = order.preset, order.job.cells
    weight = cells[0].spectral_lambda
    assert isinstance(weight, float)  # chosen after the rate
    if not isinstance(preset.learning_rates, RateRule):
        losses = {rate: training.losses(part) for rate, part in _by(cells, "learning_rate")}
        return choose_learning_rate(losses, len(cells) // len(losses), preset.rate_tolerance, weight, **_about(cells))
    target, recipe = preset.choosing_target(cells[0].model), order.recipe
    assert target is not None and recipe is not None
    tried = 0

    def losses_at(rate: float) -> list[float]:
        nonlocal tried
        tried += 1
        training.progress.update(cells=tried * len(cells))
        return training.losses([c.model_copy(update={"learning_rate": rate}) for c in cells])

    start = recipe.learning_rates[order.roster_model().recipe_class].default
    return walk_rates(losses_at, len(cells), preset.learning_rates, target, start, weight, **_about(cells))


def _lambda(order: JobOrder, training: _Training) -> Choice:
    """From the largest lambda down, until one meets the rule: those below it are not trained."""
    cells, grid, target = order.job.cells, order.preset.spectral_lambda, order.preset.choosing_target(order.job.model)
    assert isinstance(grid, LambdaGrid)  # or nothing is chosen
    by_value = dict(_by(cells, "spectral_lambda"))
    runs = len(cells) // len(by_value)
    losses: dict[float, list[float]] = {}
    for value in (0.0, *sorted(grid.grid, reverse=True)):
        losses[value] = training.losses(by_value[value])
        choice = choose_lambda(losses, runs, grid, target, **_about(cells))
        if choice.chosen:
            break
    return choice


def _by(cells: Sequence[Cell], axis: str) -> list[tuple[float, list[Cell]]]:
    """The candidates of a job by their value on the axis that is chosen on."""
    return [(v, [c for c in cells if getattr(c, axis) == v]) for v in dict.fromkeys(getattr(c, axis) for c in cells)]


def _about(cells: Sequence[Cell]) -> dict[str, Any]:
    """What a choice is about, of the cells of its job."""
    return {"model": cells[0].model, "recipe": cells[0].recipe, "batch_size": cells[0].batch_size}
