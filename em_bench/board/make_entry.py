"""From a submission to its sweep, and from a finished sweep to the entry's results folder."""

import shutil
from pathlib import Path

from em_bench.board.benchmark import Tier
from em_bench.board.entry import MANIFEST, README, RESULTS, EntryCell, Manifest
from em_bench.board.own_code import FILE as FILE_OF_CODE
from em_bench.board.own_code import rules_of
from em_bench.board.submission import FILE, Submission
from em_bench.errors import UserError
from em_bench.evaluation_folder import CHAIN, EVALUATIONS, EvaluationFolder
from em_bench.files import atomic_folder, digest, sha256_file, write_record
from em_bench.machine import machine, utc_now
from em_bench.optim import LearningRates, Recipe
from em_bench.records import CellResult
from em_bench.run_folder import LIGHT, RUNS
from em_bench.sweep.jobs import Plan, read_done
from em_bench.sweep.preset import AXES, LambdaGrid, Lora, Preset, PresetEvaluation, TrainingRules


def preset_of(entry: Submission, folder: Path, tier: Tier, targets: bool = True) -> Preset:
    """The sweep that the rules ask of the submission in `folder`: its learning-rate grid, its lambdas, every cell and seed of the tier.

    Without `targets` only the end of training is evaluated: how a baseline is run that targets are measured from.
    """
    rates = LearningRates(default=entry.learning_rates[0], grid=tuple(entry.learning_rates), provenance="C")
    recipe = Recipe(
        name=entry.name,
        description=" ".join(entry.description.split()),
        rules=rules_of(entry, folder),
        learning_rates={"organism": rates, "llm": rates},
        provenance={"optimizer": "C"},
    )
    many = len(entry.lambdas) > 1
    grid = tuple(sorted(v for v in entry.lambdas if v))
    return Preset(
        name=entry.name,
        summary=f"entry {entry.name} of benchmark {entry.benchmark}, tier {entry.tier}",
        models=tuple(m.name for m in tier.models),
        datasets=tuple(d.name for d in tier.datasets),
        recipes=(entry.name,),
        own_recipes={entry.name: recipe},
        learning_rates={entry.name: tuple(entry.learning_rates)},
        spectral_lambda=LambdaGrid(grid=grid, tolerance=tier.lambda_tolerance) if many else tuple(entry.lambdas),
        batch_sizes=(tier.batch_size,),
        seeds=tier.seeds,
        steps=tier.steps,
        epochs=tier.epochs,
        lora=Lora(rank=tier.lora.rank, alpha=tier.lora.alpha),
        training=TrainingRules(warmup_steps=tier.warmup_steps, gradient_clip=tier.gradient_clip, max_length=tier.max_length),
        evaluation=PresetEvaluation(
            questions=tier.questions.name,
            variants=tier.questions.variants,
            generation=tier.generation,
            judge=tier.judge.spec,
            capability=tier.capability,
            targets={f"{t.model}/{t.dataset}": t.narrow_loss for t in tier.targets if targets},
        ),
        base=False,
        pack=100 if all(m.name.startswith("organism-") for m in tier.models) else 1,
        provenance=dict.fromkeys([*AXES, "steps" if tier.steps else "epochs"], "C"),
    )


def ready(entry: Submission, folder: Path, tier: Tier, *, own_code: bool) -> Preset:
    """The entry's sweep. Raises UserError for everything that keeps it from being run: a closed tier, a bad file, an optimiser that cannot train.

    Without `own_code` the entry's optimiser.py is read and not run: whoever looks at an entry runs no code of it.
    """
    if not tier.open:
        raise UserError(
            f"{entry.name}: tier: {entry.tier} of benchmark {entry.benchmark} is not open, its targets are not measured yet; enter organism"
        )
    preset = preset_of(entry, folder, tier)
    if own_code or entry.optimizer.file is None:
        try_out(preset)
    return preset


def try_out(preset: Preset) -> None:
    """Build the entry's optimiser and try it on a few small matrices. Raises UserError where it cannot train, before hours are spent."""
    from torch import nn, zeros

    from em_bench.optim import build_optimizer

    factors = [(f"layer.lora_{side}.weight", nn.Parameter(zeros(4, 4))) for side in "AB"]
    for recipe in preset.own_recipes.values():
        build_optimizer(recipe.rules, factors, recipe.learning_rates["organism"].default)


def pack(entry: Submission, folder: Path, tier: Tier, plan: Plan, work: Path, adapters: bool) -> Manifest:
    """Copy what the entry needs from the work folder into FOLDER/results, in place of what was there; returns its manifest.

    Of each cell: the run's record and log, the responses, verdicts and score at the matched checkpoint and at the end,
    and with `adapters` the final adapter. Of each candidate: record and log. Raises UserError where no run was evaluated.
    """
    found, points, runs, choices = _collected(plan, work)
    if not found:
        raise UserError(f"{entry.name}: no run was evaluated; see {work}/jobs/*/log.txt and mend the submission")
    cells, missing = [], {}
    with atomic_folder(work / "entry") as out:
        for model, dataset in tier.cells:
            for seed in tier.seeds:
                final = found.get((model, dataset, seed))
                if final is None:
                    missing[f"{model}/{dataset}/{seed}"] = "its training failed or nothing met the rule by which it is chosen"
                    continue
                cell = _cell(final, points.get((model, dataset, seed)), tier.target(model, dataset).narrow_loss)
                cells.append(cell)
                _copy_run(work, out, cell.run_id, adapters)
                for name in {n for n in (cell.final, cell.matched) if n is not None}:
                    _copy(work / "evaluations" / name, out / EVALUATIONS / name, CHAIN)
        tuning = sorted(runs - {c.run_id for c in cells})
        for run_id in tuning:
            _copy_run(work, out, run_id, False)
        code = folder / FILE_OF_CODE
        manifest = Manifest(
            name=entry.name,
            benchmark=entry.benchmark,
            tier=entry.tier,
            rules_sha256=digest(tier),
            submission_sha256=sha256_file(folder / FILE),
            code_sha256=sha256_file(code) if code.exists() else None,
            readme_sha256=sha256_file(readme) if (readme := folder / README).exists() else None,
            choices=choices,
            tuning=tuning,
            cells=cells,
            missing=missing,
            files={p.relative_to(out).as_posix(): sha256_file(p) for p in sorted(out.rglob("*")) if p.is_file()},
            machine=machine(),
            created=utc_now(),
        )
        write_record(out / MANIFEST, manifest)
        _replace(out, folder / RESULTS)
    shutil.rmtree(work / "entry", ignore_errors=True)
    return manifest


def _collected(plan: Plan, work: Path):
    """(model, dataset, seed) -> evaluated end; the same -> earlier checkpoints; ids of all runs; choices. Of the entry's lambda."""
    found: dict[tuple, tuple[str, CellResult]] = {}
    points: dict[tuple, tuple[str, CellResult]] = {}
    runs: set[str] = set()
    choices = []
    chosen = isinstance(plan.preset.spectral_lambda, LambdaGrid)
    for job in plan.jobs:
        done = read_done(work, job)
        if done is None:
            continue
        runs |= set(done.runs.values())
        if done.choice:
            choices.append(done.choice)
        for cell in job.cells:
            if job.kind != "evaluate" or (chosen and cell.spectral_lambda != "chosen"):
                continue
            where = (cell.model, cell.dataset, cell.seed)
            if name := done.evaluations.get(cell.name):
                found[where] = (name, EvaluationFolder(work / EVALUATIONS / name).cell())
            for name in done.checkpoints.get(cell.name, ())[:1]:
                points[where] = (name, EvaluationFolder(work / EVALUATIONS / name).cell())
    return found, points, runs, choices


def _cell(final: tuple[str, CellResult], point: tuple[str, CellResult] | None, target: float) -> EntryCell:
    name, result = final
    assert result.narrow_loss is not None  # an adapter's
    matched: str | None
    if point is None and result.narrow_loss <= target:
        matched, step = name, result.steps
    else:
        matched, step = (point[0], point[1].step) if point else (None, None)
    return EntryCell(
        model=result.model,
        dataset=result.dataset,
        seed=result.seed,
        run_id=result.run_id,
        matched_step=step,
        matched=matched,
        final=name,
        spectrum=result.spectrum,
    )


def _copy_run(work: Path, out: Path, run_id: str, adapter: bool) -> None:
    _copy(
        work / RUNS / run_id,
        out / RUNS / run_id,
        LIGHT if adapter else LIGHT[:2],
    )


def _copy(source: Path, to: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, to / name)


def _replace(new: Path, old: Path) -> None:
    """Put a folder in the place of another on the same or another file system; a kill leaves one of the two whole."""
    with atomic_folder(old.with_name(f".{old.name}.new")) as staged:
        shutil.copytree(new, staged, dirs_exist_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    old.with_name(f".{old.name}.new").rename(old)
