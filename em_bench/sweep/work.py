"""What each kind of job does."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from em_bench.data import data_ref
from em_bench.data.models import base_path, base_ref, load_models
from em_bench.optim import load_recipes
from em_bench.protocol import base_dtype
from em_bench.records import Choice, LoraSpec, RunSpec
from em_bench.sweep.choices import choose_lambda, choose_learning_rate
from em_bench.sweep.job_progress import Progress
from em_bench.sweep.jobs import Cell, Job, JobDone, read_done
from em_bench.sweep.preset import Preset
from em_bench.training import read_run, run_spec, train
from em_bench.training.loop import TrainingFailed
from em_bench.training.options import Options
from em_bench.training.spec import PROJECTIONS


def run_job(preset: Preset, job: Job, needs: Sequence[Job], work: Path, progress: Progress) -> JobDone:
    """Do a job; what an earlier call finished is not done again."""
    earlier = [read_done(work, need) for need in needs]
    done = JobDone(job=job.id, key=job.key, wall_s=0.0)
    if job.kind == "base":
        base_path(job.id.removeprefix("base-"), progress=False)
        return done
    choices = {d.choice.kind: d.choice for d in earlier if d.choice}
    if job.kind == "evaluate":
        from em_bench.sweep.evaluating import evaluate_cells

        runs = {cell: run for d in earlier for cell, run in d.runs.items()}
        return evaluate_cells(done, preset, job, choices, runs, work, progress)
    done = train_cells(done, preset, job, choices, work, progress)
    return done.model_copy(update={"choice": _choose(preset, job, choices, done, work)}) if job.kind != "train" else done


def spec_of(preset: Preset, cell: Cell, base_dir: Path) -> RunSpec:
    """The run of a resolved cell."""
    data = data_ref(cell.dataset)
    return run_spec(
        base_ref(cell.model, base_dir),
        data,
        (load_recipes() | preset.own_recipes)[cell.recipe].resolve(cell.learning_rate),
        spectral_lambda=cell.spectral_lambda,
        lora=LoraSpec(rank=preset.lora.rank, alpha=preset.lora.alpha, targets=PROJECTIONS),
        batch_size=cell.batch_size,
        steps=preset.steps_of(cell.epochs, data.rows, cell.batch_size),
        seed=cell.seed,
        dtype=base_dtype(load_models()[cell.model].source),
    )


def train_cells(done: JobDone, preset: Preset, job: Job, choices: dict[str, Choice], work: Path, progress: Progress) -> JobDone:
    """Train the job's cells. One that diverges is a gap: as a candidate it is out, and an evaluation will miss it by name."""
    runs, gaps, known = {}, {}, load_models()[job.cells[0].model]
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
            base_dir = base_path(cell.model, progress=False)
            spec = spec_of(preset, settled, base_dir)
            try:
                folder = train(
                    spec, base_dir, work / "runs", options=options, progress=lambda r: progress.update(loss=r.loss), say=print
                )
                runs[settled.name] = folder.name
            except TrainingFailed as e:
                gaps[cell.name] = str(e)
                print(f"{cell.name}: {e}", flush=True)
        progress.end()
    return done.model_copy(update={"runs": runs, "gaps": gaps})


def _choose(preset: Preset, job: Job, choices: dict[str, Choice], done: JobDone, work: Path) -> Choice:
    """The choice of an lr or lambda job, from the narrow losses in the records of its runs."""
    axis = {"lr": "learning_rate", "lambda": "spectral_lambda"}[job.kind]
    losses: dict[float, list[float]] = defaultdict(list)
    for cell in job.cells:
        settled = cell.resolved(choices)
        if settled and settled.name in done.runs:
            losses[getattr(cell, axis)].append(read_run(work / "runs" / done.runs[settled.name]).narrow_loss)
    about = {"model": job.cells[0].model, "recipe": job.cells[0].recipe, "batch_size": job.cells[0].batch_size}
    runs = len(job.cells) // len({getattr(c, axis) for c in job.cells})
    if job.kind == "lr":
        return choose_learning_rate(losses, runs, **about)
    return choose_lambda(losses, runs, preset.spectral_lambda, **about)
