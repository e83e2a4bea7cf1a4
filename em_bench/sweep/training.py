"""The jobs that train: their cells, and of lr and lambda jobs the choice among them."""

from collections import defaultdict
from pathlib import Path

from em_bench.data import data_ref
from em_bench.data.models import base_path, base_ref
from em_bench.machine import fast_bfloat16
from em_bench.protocol import base_dtype
from em_bench.records import Choice, LoraSpec, RunSpec
from em_bench.sweep.job_progress import Progress
from em_bench.sweep.jobs import Cell, Choices, Job, JobDone, JobOrder
from em_bench.sweep.preset import LambdaGrid, Preset
from em_bench.sweep.selection import choose_lambda, choose_learning_rate
from em_bench.training import read_run, run_spec, train
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
        lora=LoraSpec(rank=preset.lora.rank, alpha=preset.lora.alpha, targets=PROJECTIONS),
        batch_size=settings.batch_size,
        steps=preset.steps_of(cell.epochs, data.rows, settings.batch_size),
        seed=settings.seed,
        dtype=preset.dtype or base_dtype(order.roster_model().source, fast_bfloat16()),
        **preset.training.model_dump(),
    )


def train_cells(done: JobDone, order: JobOrder, choices: Choices, work: Path, progress: Progress) -> JobDone:
    """Train the job's cells. One that diverges is a gap: as a candidate it is out, and an evaluation will miss it by name."""
    known, job = order.roster_model(), order.job
    runs: dict[str, str] = {}
    gaps: dict[str, str] = {}
    options = Options(
        micro_batch=known.micro_batch,
        gradient_checkpointing=known.gradient_checkpointing,
        shard=known.shard and job.gpus > 1,
    )
    for cell in job.cells:
        progress.begin(cell.name)
        settled = cell.resolved(choices)
        if settled is None:
            gaps[cell.name] = "nothing met the rule by which it is chosen"
        else:
            base_dir = base_path(order.base, progress=False)
            spec = spec_of(order, settled, base_dir)
            try:
                folder = train(
                    spec, base_dir, work / "runs", options=options, progress=lambda r: progress.update(loss=r.loss), say=print
                )
                runs[settled.name] = folder.name
            except TrainingFailed as e:
                gaps[cell.name] = str(e)
                print(f"{cell.name}: {e}", flush=True)
        progress.end()
    done = done.model_copy(update={"runs": runs, "gaps": gaps})
    return done if job.kind == "train" else done.model_copy(update={"choice": _choose(order.preset, job, choices, done, work)})


def _choose(preset: Preset, job: Job, choices: Choices, done: JobDone, work: Path) -> Choice:
    """The choice of an lr or lambda job, from the narrow losses in the records of its runs."""
    axis = {"lr": "learning_rate", "lambda": "spectral_lambda"}[job.kind]
    losses: dict[float, list[float]] = defaultdict(list)
    for cell in job.cells:
        settled = cell.resolved(choices)
        if settled and settled.name in done.runs:
            losses[getattr(cell, axis)].append(read_run(work / "runs" / done.runs[settled.name]).narrow_loss)
    first = job.cells[0].settings()
    runs = len(job.cells) // len({getattr(c, axis) for c in job.cells})
    if job.kind == "lr":
        return choose_learning_rate(losses, runs, model=job.cells[0].model, recipe=first.recipe, batch_size=first.batch_size)
    grid = preset.spectral_lambda
    assert isinstance(grid, LambdaGrid)  # or nothing is chosen
    return choose_lambda(losses, runs, grid, model=job.cells[0].model, recipe=first.recipe, batch_size=first.batch_size)
