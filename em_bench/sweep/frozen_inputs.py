"""What the names in a job stand for: frozen when it is ordered, and compared by the job before it does anything."""

from collections.abc import Sequence

from em_bench.code_digest import check_loaded, code_digest
from em_bench.data import data_ref
from em_bench.data.models import load_models
from em_bench.data.questions import questions_sha256
from em_bench.errors import UserError
from em_bench.judging import make_judge
from em_bench.sweep.jobs import ENTRIES, Inputs, Job, JobOrder
from em_bench.sweep.preset import Preset
from em_bench.sweep.source_info import answered_by, source


def freeze(preset: Preset, todo: Sequence[Job]) -> Inputs:
    """The identity of what these jobs will read; fetches it where it is not there, and sees that the judge can be asked.

    Raises UserError for what cannot be had, and for a file that was edited since it was planned with.
    """
    datasets = {}
    for name in sorted(
        {c.dataset for j in todo if j.kind not in ("answer", "evaluate") for c in j.cells if c.dataset is not None}
    ):
        datasets[name] = data_ref(name).sha256
        if source(name).sha256 not in (None, datasets[name]):
            raise UserError(f"{name}: edited while it was planned with; give the same command again")
    if not any(j.kind in ("answer", "evaluate") for j in todo):
        return Inputs(datasets=datasets)
    return Inputs(datasets=datasets, questions=_questions(preset), prompts=_prompts(preset))


def check(order: JobOrder) -> None:
    """Raises UserError, naming it, where the code, the model or an input of a job is here another than was planned."""
    job = order.job
    check_loaded()
    refuse_other(job, "the code of em_bench", job.code, code_digest(*ENTRIES[job.kind]))
    refuse_other(job, f"model {job.model}", order.model, (load_models() | order.preset.own_models).get(job.model))
    for name, sha256 in order.inputs.datasets.items():
        refuse_other(job, f"dataset {name}", sha256, data_ref(name).sha256)
    if job.kind in ("answer", "evaluate"):
        refuse_other(job, f"question set {order.preset.evaluation.questions}", order.inputs.questions, _questions(order.preset))
    if job.kind == "evaluate":
        refuse_other(job, f"judge {order.preset.evaluation.judge}", order.inputs.prompts, _prompts(order.preset))


def refuse_other(job: Job, what: str, planned: object, here: object) -> None:
    """Raises UserError unless what a job finds is what was planned."""
    if planned != here:
        which = f" (planned {planned[:12]}, here {here[:12]})" if isinstance(planned, str) and isinstance(here, str) else ""
        raise UserError(f"{job.id}: {what} is no longer what was planned{which}; give the same command again, which plans anew")


def _questions(preset: Preset) -> str:
    if preset.evaluation.measure == "margin":
        return questions_sha256(answered_by(preset.evaluation))
    return questions_sha256(preset.evaluation.asked())


def _prompts(preset: Preset) -> str | None:
    return None if preset.evaluation.measure == "margin" else make_judge(preset.evaluation.judge).identity.prompt_sha256
