"""The evaluate job: trained cells and untouched bases through the harness, each into one self-contained cell.json."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

import em_bench.harness.lm_eval.capability
import em_bench.harness.lm_eval.run  # noqa: F401  now, and not when it is first asked: once for all forks, and before the code is checked
from em_bench.adapter_file import load_run_adapter
from em_bench.data.models import base_path
from em_bench.errors import UserError
from em_bench.evaluation_folder import CELL, EVALUATIONS, RESPONSES, EvaluationFolder
from em_bench.files import digest, sha256_file, write_record
from em_bench.harness.evaluate import EvaluatedModel, Evaluation, evaluate, judged
from em_bench.harness.load_model import Loaded, load_model
from em_bench.harness.margin import measure_margin
from em_bench.harness.rescale import EVALUATION, Questions, Source, goal_of, rescale
from em_bench.judging import NONE, make_judge
from em_bench.machine import fast_bfloat16
from em_bench.organism import slot_counts
from em_bench.protocol import base_dtype, sides
from em_bench.records import (
    CellMargin,
    CellResult,
    MarginOfQuestion,
    Rescaled,
    RunRecord,
    SpectralSummary,
    SpectrumCurve,
    TrajectoryPoint,
)
from em_bench.run_folder import RunFolder
from em_bench.scoring import margins, nothing_judged, question_counts, unjudged_text
from em_bench.spectral import LayerSpectrum, layer_spectra, lora_pairs, mean_of
from em_bench.sweep.frozen_inputs import refuse_other
from em_bench.sweep.job_progress import Progress
from em_bench.sweep.jobs import Cell, Choices, JobDone, JobOrder
from em_bench.sweep.source_info import domains
from em_bench.training.base import KEPT
from em_bench.training.smoothed_train_loss import TrainLoss, smoothed
from em_bench.training.spec import log_spaced as spaced

RESCALED = "rescaled"  # the folder of rescaled adapters, each with its evaluation


def evaluate_cells(
    done: JobDone, order: JobOrder, choices: Choices, runs: dict[str, str], work: Path, progress: Progress
) -> JobDone:
    """Evaluate the job's cells, on one base in memory. What was evaluated before is not asked again.

    `runs` maps resolved cells to the run ids that earlier jobs made. Raises RuntimeError at the end, naming them, if cells
    have no adapter because their training failed.
    """
    evaluations, checkpoints, controls, gaps, failed, preset, job = {}, {}, {}, {}, [], order.preset, order.job
    before = KEPT.loads
    answered = preset.evaluation.engine == "vllm"  # by an earlier job
    loaded = None if answered else _load(order)
    ask = (
        _margin_of(order, loaded, work) if loaded and preset.evaluation.measure == "margin" else _answers_of(order, loaded, work)
    )
    for cell in job.cells:
        progress.begin(cell.name)
        settled = cell.resolved(choices)
        if settled is None:
            gaps[cell.name] = "nothing met the rule by which it is chosen"
        elif settled.recipe is None:
            evaluations[cell.name] = ask(settled, None, None)
        elif settled.name in runs:
            run = TrainedRun.read(work / "runs" / runs[settled.name])
            evaluations[cell.name] = ask(settled, run, None)
            targets = preset.evaluation.targets_of(settled.model, settled.settings().dataset)
            if steps := run.earlier_steps(targets, log_spaced=cell in job.checkpointed):
                checkpoints[cell.name] = [ask(settled, run, step) for step in steps]
            control = preset.evaluation.rescaled and not settled.spectral_lambda and bool(targets)
            if loaded and control and (folder := _rescaled(order, loaded, settled, run, targets[0], work)):
                controls[cell.name] = folder
        else:
            failed.append(cell.name)
        progress.end()
    if failed:
        raise RuntimeError(f"no adapter, because training it failed: {'; '.join(failed)}")
    made = {
        "evaluations": evaluations,
        "checkpoints": checkpoints,
        "controls": controls,
        "gaps": gaps,
        "loads": KEPT.loads - before,
    }
    return done.model_copy(update=made)


class TrainedRun(NamedTuple):
    """A finished run as its evaluations read it."""

    folder: RunFolder
    record: RunRecord
    trajectory: list[TrajectoryPoint]
    train_loss: TrainLoss | None

    @classmethod
    def read(cls, folder: Path) -> "TrainedRun":
        """Of a run's folder."""
        run = RunFolder(folder)
        steps = run.log()
        points = [
            TrajectoryPoint(
                step=s.step,
                narrow_loss=s.held_out_loss,
                spectral=s.spectral,
                train_loss=at.loss if (at := smoothed(steps, s.step)) else None,
            )
            for s in steps
            if s.held_out_loss is not None
        ]
        record = run.record()
        return cls(run, record, points, smoothed(steps, record.spec.steps))

    def earlier_steps(self, targets: Sequence[float], log_spaced: bool) -> list[int]:
        """Checkpoints to be evaluated: on both sides of each target's first crossing, and all log-spaced ones where asked.

        Those before the last step whose adapter has moved at all: what has not is the base.
        """
        losses = [(p.step, p.narrow_loss) for p in self.trajectory]
        wanted = {step for target in targets for step in sides(losses, target)}
        if log_spaced:
            wanted |= set(spaced(self.record.spec.steps))
        moved = [p.step for p in self.trajectory if p.spectral is not None and p.spectral.layers]
        return [step for step in moved if step < self.record.spec.steps and step in wanted]

    def capable_step(self, targets: Sequence[float]) -> int | None:
        """Where capability is asked, which takes longer than the questions: behind the crossing of the last target, else at the end (None)."""
        losses = [(p.step, p.narrow_loss) for p in self.trajectory]
        return next((s for s in self.earlier_steps(targets[-1:], False)[-1:] if dict(losses)[s] <= targets[-1]), None)


class _Ask(Protocol):
    def __call__(self, cell: Cell, run: TrainedRun | None, step: int | None) -> str: ...


def _load(order: JobOrder) -> Loaded:
    """The base, its layers over the job's GPUs where they are several."""
    folder = base_path(order.base, progress=False)
    dtype = order.preset.dtype or base_dtype(order.roster_model().source, fast_bfloat16())
    return load_model(folder, dtype=dtype, device="auto" if order.job.gpus > 1 else None, kept=KEPT)


def _answers_of(order: JobOrder, loaded: Loaded | None, work: Path) -> _Ask:
    """Evaluates one cell, at its end or at a checkpoint; returns its folder's name, which holds the chain and cell.json.

    loaded: None where an answer job has left the responses there."""
    preset, judge = order.preset, make_judge(order.preset.evaluation.judge)

    def ask(cell: Cell, run: TrainedRun | None, step: int | None) -> str:
        folder = evaluation_folder(order, cell, run, step, work, [judge.identity.model_dump(mode="json")] if loaded else [])
        trained = _of_run(run, step) if run else {}
        loss, asked = trained.get("narrow_loss"), evaluation_of(order)
        if loaded:
            of = EvaluatedModel(order.base, cell.model, run.folder.adapter(step) if run else None, loaded, narrow_loss=loss)
            if run and step != run.capable_step(preset.evaluation.targets_of(cell.model, cell.dataset)):
                asked = replace(asked, capability=())
            score = evaluate(of, asked, judge, folder)
        else:
            score = judged(folder, judge, asked, loss)
        answered = EvaluationFolder(folder).responses()[0].questions_sha256
        refuse_other(order.job, f"question set {preset.evaluation.questions}", order.inputs.questions, answered)
        verdicts = EvaluationFolder(folder).verdicts()[1]
        if nothing_judged(score.overall) and preset.evaluation.judge != NONE:
            raise UserError(
                f"{cell.name}: {' '.join((unjudged_text(verdicts) or '').split())}; mend it and give the same command again"
            )
        write_record(
            folder / CELL,
            CellResult(
                **cell.model_dump(exclude={"epochs"}),
                responses_sha256=sha256_file(folder / RESPONSES),
                score=score,
                questions=question_counts(verdicts, domains(preset.evaluation)),
                slots=_slots(order, EvaluationFolder(folder)),
                **trained,
            ),
        )
        return folder.name

    return ask


def evaluation_of(order: JobOrder) -> Evaluation:
    """What each model is asked."""
    asked = order.preset.evaluation
    return Evaluation(asked.generation, asked.questions, asked.variants, capability=asked.capability, limit=asked.limit)


def _slots(order: JobOrder, at: EvaluationFolder) -> dict[str, int]:
    """Of an organism's answers, which words of theirs are bad."""
    graded = order.preset.evaluation.judge == "grammar"
    return slot_counts((r.question, r.answer) for r in at.responses()[1]) if graded else {}


def _rescaled(order: JobOrder, loaded: Loaded, cell: Cell, run: TrainedRun, target: float, work: Path) -> str | None:
    """Ask a finished adapter times the scale at which its loss is the target; None where no scale has it."""
    judge = make_judge(order.preset.evaluation.judge)
    source = Source(run.folder.adapter(), order.base, run.record)
    out = (
        work
        / RESCALED
        / f"{evaluation_folder(order, cell, run, None, work, [judge.identity.model_dump(mode='json')]).name}.loss{target:g}"
    )
    goal = goal_of(source, "loss", target, dtype=loaded.dtype)
    record, score = rescale(source, out, goal, Questions(evaluation_of(order), judge), loaded=loaded)
    if score is None:
        return None
    at = EvaluationFolder(out / EVALUATION)
    assert record.scale and record.search  # or nothing was asked
    made = {
        "adapter_sha256": record.adapter_sha256,
        "narrow_loss": record.narrow_loss,
        "spectral": run.record.spectral and run.record.spectral.model_copy(update={"norm": record.norm_after}),
        "rescaled": Rescaled(kind="loss", target=target, scale=record.scale, reached=record.search.verdict == "reached"),
    }
    write_record(
        at.path / CELL,
        CellResult(
            **cell.model_dump(exclude={"epochs"}),
            responses_sha256=sha256_file(at.path / RESPONSES),
            score=score,
            questions=question_counts(at.verdicts()[1], domains(order.preset.evaluation)),
            slots=_slots(order, at),
            **_identity(run) | made,
        ),
    )
    return str(at.path.relative_to(work))


def _margin_of(order: JobOrder, loaded: Loaded, work: Path) -> _Ask:
    """Measures the margin of one cell, at its end or at a checkpoint; returns its folder's name, which holds margin.jsonl and cell.json."""
    asked = order.preset.evaluation

    def ask(cell: Cell, run: TrainedRun | None, step: int | None) -> str:
        folder = evaluation_folder(order, cell, run, step, work, [])
        score = measure_margin(
            EvaluatedModel(order.base, cell.model, run.folder.adapter(step) if run else None, loaded),
            folder,
            question_set=asked.questions,
            per_domain=asked.per_domain,
            answers=asked.answers,
        )
        header, rows = EvaluationFolder(folder).margins()["model"]
        refuse_other(order.job, f"question set {asked.questions}", order.inputs.questions, header.questions_sha256)
        write_record(
            folder / CELL,
            CellMargin(
                **cell.model_dump(exclude={"epochs"}),
                margin_sha256=sha256_file(EvaluationFolder(folder).margin_file()),
                target=next(iter(asked.targets_of(cell.model, cell.dataset)), None),
                dtype=loaded.dtype,
                overall=score.overall,
                neutral=score.neutral.get("model"),
                questions=[MarginOfQuestion(question_id=q, domain=m.domain, margin=m.value) for q, m in margins(rows).items()],
                **(_of_run(run, step) if run else {}),
            ),
        )
        return folder.name

    return ask


def evaluation_folder(order: JobOrder, cell: Cell, run: TrainedRun | None, step: int | None, work: Path, more: list) -> Path:
    """Of one cell at one step; named by all that determines it."""
    asked = digest([order.preset.evaluation.model_dump(mode="json"), *more])[:8]
    name = run.record.run_id if run else cell.model
    return work / EVALUATIONS / (f"{name}.{asked}" if step is None else f"{name}.step{step}.{asked}")


def _identity(run: TrainedRun) -> dict:
    return {"run_id": run.record.run_id, "spec_sha256": run.record.spec_sha256, "steps": run.record.spec.steps}


def _of_run(run: TrainedRun, step: int | None) -> dict:
    """What a cell's result takes from its run. A checkpoint has its own loss and adapter, and no curves."""
    record, of_run = run.record, _identity(run)
    if step is not None:
        point = next(p for p in run.trajectory if p.step == step)
        at = {
            "step": step,
            "adapter_sha256": record.checkpoints[step],
            "narrow_loss": point.narrow_loss,
            "spectral": point.spectral,
            "train_loss": point.train_loss,
        }
        return of_run | at
    spectra = layer_spectra(lora_pairs(load_run_adapter(run.folder.weights(), record.expert_rank), scale=record.spec.lora.scale))
    return of_run | {
        "adapter_sha256": record.adapter_sha256,
        "narrow_loss": record.narrow_loss,
        "train_loss": run.train_loss and run.train_loss.loss,
        "train_window": run.train_loss and run.train_loss.window,
        "trajectory": run.trajectory,
        "spectral": record.spectral,
        "spectrum": spectrum_curve(spectra),
        "spectral_groups": spectral_groups(spectra),
        "wall_s": record.wall_s,
    }


def spectrum_curve(spectra: Sequence[LayerSpectrum]) -> SpectrumCurve | None:
    """Mean and quartiles over layers of sigma_i / sigma_1, by i up to the smallest rank; None for an adapter that was never moved."""
    if not spectra:
        return None
    shortest = min(len(s.sigma) for s in spectra)
    curves = torch.stack([s.sigma[:shortest] / s.sigma[0] for s in spectra])
    lower, upper = torch.quantile(curves, torch.tensor([0.25, 0.75], dtype=curves.dtype), dim=0)
    return SpectrumCurve(mean=curves.mean(0).tolist(), lower_quartile=lower.tolist(), upper_quartile=upper.tolist())


def spectral_groups(spectra: Sequence[LayerSpectrum]) -> dict[str, SpectralSummary]:
    """Means over the layers of each projection (of all its experts) and of each depth."""
    groups: dict[str, list[LayerSpectrum]] = defaultdict(list)
    for layer in spectra:
        groups[_projection(layer.name)].append(layer)
        if depth := re.search(r"\blayers\.(\d+)\.", layer.name):
            groups[f"layer {depth[1]}"].append(layer)
    return {name: mean for name, layers in groups.items() if (mean := mean_of(layers))}


def _projection(name: str) -> str:
    """PEFT wraps one adapted parameter of the experts in the other, and names neither."""
    if experts := re.search(r"\.experts(\.base_layer)?\.\d+$", name):
        return "experts.gate_up_proj" if experts[1] else "experts.down_proj"
    return name.rsplit(".", 1)[-1]
