"""results.json: everything that the jobs of a plan have produced so far, and by name what is missing."""

from itertools import product
from pathlib import Path

from em_bench.evaluation_folder import EVALUATIONS, EvaluationFolder
from em_bench.machine import machine, utc_now
from em_bench.records import CellMargin, CellResult, Choice, Results, Study
from em_bench.sweep.jobs import Plan, one_revision, read_done


def collect(plan: Plan, work: Path, wall_s: float | None = None) -> Results:
    """The results of all jobs that are done. A cell that nothing evaluated is named in `missing`.

    Raises UserError where the jobs of a base used several revisions of it.
    """
    cells: list[CellResult] = []
    checkpoints: list[CellResult] = []
    controls: list[CellResult] = []
    margins: list[CellMargin] = []
    choices: list[Choice] = []
    missing: list[str] = []
    preset = plan.preset
    of_margin = preset.evaluation.measure == "margin"

    def result(folder: str, studies: tuple[Study, ...]) -> CellResult:
        return EvaluationFolder(work / EVALUATIONS / folder).cell().model_copy(update={"studies": list(studies)})

    ended = {job.id: read_done(work, job) for job in plan.jobs}
    for model in preset.models:
        one_revision(model, (d for j in plan.jobs if j.kind != "report" and j.model == model and (d := ended[j.id])))
    for job in plan.jobs:
        done = ended[job.id]
        if done and done.choice:
            choices.append(done.choice)
        if job.kind == "evaluate":
            for cell in job.cells:
                if done and cell.name in done.evaluations:
                    studies = job.studies.get(cell.name, ())
                    end, earlier = done.evaluations[cell.name], done.checkpoints.get(cell.name, ())
                    if of_margin:
                        margins += [EvaluationFolder(work / EVALUATIONS / folder).cell_margin() for folder in (end, *earlier)]
                        continue
                    cells.append(result(end, studies))
                    checkpoints += [result(folder, studies) for folder in earlier]
                    if control := done.controls.get(cell.name):
                        controls.append(EvaluationFolder(work / control).cell().model_copy(update={"studies": list(studies)}))
                else:
                    missing.append(f"{cell.name}: {done.gaps[cell.name] if done else 'its job is not done'}")
    return Results(
        preset=preset.name,
        preset_sha256=plan.preset_sha256,
        cells=cells,
        checkpoints=checkpoints,
        controls=controls,
        margins=margins,
        targets={
            f"{m}/{d}": found for m, d in product(preset.models, preset.datasets) if (found := preset.evaluation.targets_of(m, d))
        },
        choices=choices,
        missing=missing,
        machine=machine(),
        created=utc_now(),
        wall_s=wall_s,
    )
