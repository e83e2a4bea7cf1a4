"""From a submission to its sweep, and from a finished sweep to the entry's results folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from em_bench.board.benchmark import Tier
from em_bench.board.entry import MANIFEST, README, RESULTS, EntryCell, Manifest
from em_bench.board.own_code import FILE as FILE_OF_CODE
from em_bench.board.own_code import rules_of
from em_bench.board.packed import FILES
from em_bench.board.packed import pack as tables
from em_bench.board.packed_adapters import pack_adapters
from em_bench.board.submission import FILE, OWN_RATE, Submission
from em_bench.board.witnesses import witnesses
from em_bench.errors import UserError
from em_bench.evaluation_folder import EVALUATIONS, EvaluationFolder
from em_bench.files import atomic_folder, sha256_file, write_record
from em_bench.machine import machine, utc_now
from em_bench.optim import LearningRates, Recipe
from em_bench.records import Choice
from em_bench.run_folder import RUNS, RunFolder
from em_bench.sweep.jobs import Plan, read_done
from em_bench.sweep.preset import AXES, LambdaGrid, Preset, PresetEvaluation
from em_bench.sweep.preset_training import Lora, TrainingRules
from em_bench.verify.withheld import publishable


def preset_of(entry: Submission, folder: Path, tier: Tier) -> Preset:
    """The sweep that the rules ask of the submission in `folder`: the search for its rate, its lambdas, every cell and seed of the tier."""
    start = entry.learning_rate or OWN_RATE
    rates = LearningRates(default=start, grid=(start,), provenance="C")
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
        learning_rates=tier.rates if entry.learning_rate else {entry.name: (start,)},
        spectral_lambda=LambdaGrid(grid=grid, tolerance=tier.lambda_tolerance) if many else tuple(entry.lambdas),
        batch_sizes=(tier.batch_size,),
        seeds=tier.seeds,
        steps=tier.steps,
        epochs=tier.epochs,
        lora=Lora(rank=tier.lora.rank, alpha=tier.lora.alpha),
        dtype=tier.dtype,
        training=TrainingRules(warmup_steps=tier.warmup_steps, gradient_clip=tier.gradient_clip, max_length=tier.max_length),
        evaluation=PresetEvaluation(
            questions=tier.questions.name,
            variants=tier.questions.variants,
            generation=tier.generation,
            judge=tier.asks.spec,
            capability=tier.capability,
            targets={f"{t.model}/{t.dataset}": tier.losses_of(t.model, t.dataset) for t in tier.targets},
        ),
        base=False,
        pack=100 if all(m.name.startswith("organism-") for m in tier.models) else 1,
        provenance=dict.fromkeys([*AXES, "steps" if tier.steps else "epochs"], "C"),
    )


def sweep_of(entry: Submission, folder: Path, tier: Tier) -> Preset:
    """The entry's sweep, its optimiser untried. Raises UserError for a closed tier or a bad file."""
    if not tier.open:
        raise UserError(
            f"{entry.name}: tier: {entry.tier} of benchmark {entry.benchmark} is not open, its rules pin no data and no losses yet; enter organism"
        )
    return preset_of(entry, folder, tier)


def ready(entry: Submission, folder: Path, tier: Tier, *, own_code: bool) -> Preset:
    """The entry's sweep. Raises UserError for everything that keeps it from being run: as `sweep_of`, or an optimiser that cannot train.

    Without `own_code` the entry's optimiser.py is read and not run: whoever looks at an entry runs no code of it.
    """
    preset = sweep_of(entry, folder, tier)
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


def pack(entry: Submission, folder: Path, tier: Tier, plan: Plan, work: Path) -> Manifest:
    """Copy what the entry needs from the work folder into FOLDER/results, in place of what was there; returns its manifest.

    Of each cell: the run's record and log, and the responses, verdicts and score of each evaluation; of the cells that these draw,
    the adapters. Of each candidate: record and log. Raises UserError where no run was evaluated.
    """
    found, runs, choices = _collected(plan, work)
    if not found:
        raise UserError(f"{entry.name}: no run was evaluated; see {work}/jobs/*/log.txt and mend the submission")
    wanted = [(model, dataset, seed) for model, dataset in tier.cells for seed in tier.seeds]
    why = "its training failed or nothing met the rule by which it is chosen"
    missing = {"/".join(map(str, where)): why for where in wanted if where not in found}
    cells = [found[where] for where in wanted if where in found]
    with atomic_folder(work / "entry") as out:
        tuning = sorted(runs - {c.run_id for c in cells})
        code = folder / FILE_OF_CODE
        manifest = Manifest(
            name=entry.name,
            benchmark=entry.benchmark,
            tier=entry.tier,
            rules_sha256=tier.rules_sha256,
            submission_sha256=sha256_file(folder / FILE),
            code_sha256=sha256_file(code) if code.exists() else None,
            readme_sha256=sha256_file(readme) if (readme := folder / README).exists() else None,
            choices=choices,
            tuning=tuning,
            cells=cells,
            missing=missing,
            files={},
            machine=machine(),
            created=utc_now(),
        )
        manifest = write_results(out, work, manifest, tier)
        write_record(out / MANIFEST, manifest)
        _replace(out, folder / RESULTS)
    shutil.rmtree(work / "entry", ignore_errors=True)
    return manifest


def _collected(plan: Plan, work: Path) -> tuple[dict[tuple[str, str, int], EntryCell], set[str], list[Choice]]:
    """(model, dataset, seed) -> its cell, of the entry's lambda; ids of all runs; choices."""
    found: dict[tuple[str, str, int], EntryCell] = {}
    runs: set[str] = set()
    choices: list[Choice] = []
    chosen = isinstance(plan.preset.spectral_lambda, LambdaGrid)
    for job in plan.jobs:
        done = read_done(work, job)
        if done is None:
            continue
        runs |= set(done.runs.values())
        if done.choice:
            choices.append(done.choice)
        for cell in job.cells:
            name = done.evaluations.get(cell.name)
            if job.kind == "evaluate" and name and not (chosen and cell.spectral_lambda != "chosen"):
                made = _cell(name, done.checkpoints.get(cell.name, []), work)
                found[made.model, made.dataset, made.seed] = made
    return found, runs, choices


def _cell(end: str, checkpoints: Sequence[str], work: Path) -> EntryCell:
    result = EvaluationFolder(work / EVALUATIONS / end).cell()
    assert result.dataset and result.seed is not None and result.run_id and result.steps  # an adapter's
    steps = {EvaluationFolder(work / EVALUATIONS / name).cell().step: name for name in checkpoints}
    return EntryCell(
        model=result.model,
        dataset=result.dataset,
        seed=result.seed,
        run_id=result.run_id,
        evaluated={step: name for step, name in steps.items() if step} | {result.steps: end},
        spectrum=result.spectrum,
    )


def write_results(out: Path, work: Path, manifest: Manifest, tier: Tier) -> Manifest:
    """The runs, evaluations and adapters that a manifest is of, from the folders under `work` into few files; returns it with their hashes.

    Texts of questions that may not be republished stay behind.
    """
    runs = {run_id: RunFolder(work / RUNS / run_id) for run_id in (*(c.run_id for c in manifest.cells), *manifest.tuning)}
    with TemporaryDirectory(prefix=".withheld-", dir=work) as scratch:
        evaluations = [publishable(EvaluationFolder(work / EVALUATIONS / name), Path(scratch)) for name in manifest.evaluations]
        tables(out, runs.values(), evaluations)
    manifest = manifest.model_copy(update={"files": {name: sha256_file(out / name) for name in FILES}})
    pack_adapters(out, [(runs[run_id], step) for run_id, step in witnesses(manifest, tier)])
    return manifest.model_copy(update={"files": {p.name: sha256_file(p) for p in sorted(out.iterdir())}})


def _replace(new: Path, old: Path) -> None:
    """Put a folder in the place of another on the same or another file system; a kill leaves one of the two whole."""
    with atomic_folder(old.with_name(f".{old.name}.new")) as staged:
        shutil.copytree(new, staged, dirs_exist_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    old.with_name(f".{old.name}.new").rename(old)
