"""The answer job: all answers of a base and its adapters from one vLLM server, which has ended when a judge is asked."""

from collections.abc import Sequence
from pathlib import Path

from em_bench.harness.evaluate import EvaluatedModel
from em_bench.harness.served.run import LOG, answer_with_vllm
from em_bench.machine import fast_bfloat16
from em_bench.protocol import base_dtype
from em_bench.sweep.evaluating import TrainedRun, evaluation_folder, evaluation_of
from em_bench.sweep.job_progress import Progress
from em_bench.sweep.jobs import Cell, Choices, JobDone, JobOrder, job_folder
from em_bench.training.base import KEPT

AT_ONCE = 256  # questions under way


def answer_cells(
    done: JobDone, order: JobOrder, earlier: Sequence[JobDone], runs: dict[str, str], work: Path, progress: Progress
) -> JobDone:
    """Have responses.jsonl of each cell, at its end and at the checkpoints that are asked, where the cell's evaluation looks for it.

    What is answered is not asked again. A cell that has no adapter, because nothing met its rule or its training failed, is left to its
    evaluation to say. Raises UserError where vLLM is not found, does not start or dies; what was answered is kept.
    """
    choices: dict[tuple[str | None, int | None], Choices] = {}
    for need, its in zip(order.needs, earlier, strict=True):
        if its.choice:
            chain = need.cells[0].recipe, need.cells[0].batch_size
            choices[chain] = {**choices.get(chain, {}), its.choice.kind: its.choice}
    asked: dict[Path, EvaluatedModel] = {}  # a chosen rate may be one that is evaluated anyway
    evaluations: dict[str, str] = {}
    checkpoints: dict[str, list[str]] = {}
    for cell in order.job.cells:
        settled = cell.resolved(choices.get((cell.recipe, cell.batch_size), {}))
        if settled is None or (settled.recipe and settled.name not in runs):
            continue
        run = TrainedRun.read(work / "runs" / runs[settled.name]) if settled.recipe else None
        steps: list[int | None] = [None]
        if run:
            targets = order.preset.evaluation.targets_of(settled.model, settled.dataset)
            steps += run.earlier_steps(targets, log_spaced=cell in order.job.checkpointed)
        for step in steps:
            folder = evaluation_folder(order, settled, run, step, work, [])
            asked[folder] = served_model(order, settled, run, step)
            if step is None:
                evaluations[cell.name] = folder.name
            else:
                checkpoints.setdefault(cell.name, []).append(folder.name)
    progress.begin(f"{len(asked)} models through one vLLM server")
    if asked:
        KEPT.let_go()  # of a worker that has trained: its GPUs are the server's now
        log = job_folder(work, order.job) / LOG
        answer_with_vllm([(of, at) for at, of in asked.items()], evaluation_of(order), None, order.job.gpus, AT_ONCE, log)
    for _ in order.job.cells:
        progress.end()
    return done.model_copy(update={"evaluations": evaluations, "checkpoints": checkpoints})


def served_model(order: JobOrder, cell: Cell, run: TrainedRun | None, step: int | None) -> EvaluatedModel:
    """What the server is asked as."""
    dtype = order.preset.dtype or base_dtype(order.roster_model().source, fast_bfloat16())
    return EvaluatedModel(order.base, cell.model, run.folder.adapter(step) if run else None, dtype=dtype)
