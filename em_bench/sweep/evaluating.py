"""The evaluate job: trained cells and untouched bases through the harness, each into one self-contained cell.json."""

import re
from collections import defaultdict
from collections.abc import Sequence
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
from em_bench.harness.evaluate import EvaluatedModel, Evaluation, evaluate
from em_bench.harness.load_model import Loaded, load_model
from em_bench.harness.margin import measure_margin
from em_bench.judging import NONE, make_judge
from em_bench.machine import fast_bfloat16
from em_bench.protocol import base_dtype, first_at
from em_bench.records import (
    CellMargin,
    CellResult,
    MarginOfQuestion,
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
from em_bench.training.smoothed_train_loss import TrainLoss, smoothed


def evaluate_cells(
    done: JobDone, order: JobOrder, choices: Choices, runs: dict[str, str], work: Path, progress: Progress
) -> JobDone:
    """Evaluate the job's cells, on one base in memory. What was evaluated before is not asked again.

    `runs` maps resolved cells to the run ids that earlier jobs made. Raises RuntimeError at the end, naming them, if cells
    have no adapter because their training failed.
    """
    evaluations, checkpoints, gaps, failed, preset, job = {}, {}, {}, [], order.preset, order.job
    loaded = _load(order)
    ask = _margin_of(order, loaded, work) if preset.evaluation.measure == "margin" else _answers_of(order, loaded, work)
    for cell in job.cells:
        progress.begin(cell.name)
        settled = cell.resolved(choices)
        if settled is None:
            gaps[cell.name] = "nothing met the rule by which it is chosen"
        elif settled.recipe is None:
            evaluations[cell.name] = ask(settled, None, None)
        elif settled.name in runs:
            run = _Run.read(work / "runs" / runs[settled.name])
            evaluations[cell.name] = ask(settled, run, None)
            target = preset.evaluation.targets.get(f"{settled.model}/{settled.dataset}")
            both = preset.evaluation.measure == "margin"
            steps = run.earlier_steps() if cell in job.checkpointed else run.reaching(target, both)
            if steps:
                checkpoints[cell.name] = [ask(settled, run, step) for step in steps]
        else:
            failed.append(cell.name)
        progress.end()
    if failed:
        raise RuntimeError(f"no adapter, because training it failed: {'; '.join(failed)}")
    return done.model_copy(update={"evaluations": evaluations, "checkpoints": checkpoints, "gaps": gaps})


class _Run(NamedTuple):
    folder: RunFolder
    record: RunRecord
    trajectory: list[TrajectoryPoint]
    train_loss: TrainLoss | None

    @classmethod
    def read(cls, folder: Path) -> "_Run":
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

    def earlier_steps(self) -> list[int]:
        """The checkpoints before the last step whose adapter has moved at all."""
        moved = [p.step for p in self.trajectory if p.spectral is not None and p.spectral.layers]
        return [step for step in moved if step < self.record.spec.steps]

    def reaching(self, target: float | None, both_sides: bool = False) -> list[int]:
        """The first checkpoint whose narrow loss is at most `target`, and the one before it if `both_sides`, of those before the last step."""
        steps = [p.step for p in self.trajectory]
        first = first_at(((p.step, p.narrow_loss) for p in self.trajectory), target) if target else None
        wanted = {first, steps[steps.index(first) - 1] if both_sides else first} if first else set()
        return [step for step in self.earlier_steps() if step in wanted]


class _Ask(Protocol):
    def __call__(self, cell: Cell, run: _Run | None, step: int | None) -> str: ...


def _load(order: JobOrder) -> Loaded:
    """The base, its layers over the job's GPUs where they are several."""
    folder = base_path(order.base, progress=False)
    dtype = order.preset.dtype or base_dtype(order.roster_model().source, fast_bfloat16())
    return load_model(folder, dtype=dtype, device="auto" if order.job.gpus > 1 else None)


def _answers_of(order: JobOrder, loaded: Loaded, work: Path) -> _Ask:
    """Evaluates one cell, at its end or at a checkpoint; returns its folder's name, which holds the chain and cell.json."""
    preset, judge = order.preset, make_judge(order.preset.evaluation.judge)

    def ask(cell: Cell, run: _Run | None, step: int | None) -> str:
        folder = _folder(order, cell, run, step, work, [judge.identity.model_dump(mode="json")])
        trained = _of_run(run, step) if run else {}
        asked = preset.evaluation
        of = EvaluatedModel(
            order.base,
            cell.model,
            run.folder.adapter(step) if run else None,
            loaded=loaded,
            narrow_loss=trained.get("narrow_loss"),
        )
        evaluation = Evaluation(asked.generation, asked.questions, asked.variants, capability=asked.capability, limit=asked.limit)
        score = evaluate(of, evaluation, judge, folder)
        answered = EvaluationFolder(folder).responses()[0].questions_sha256
        refuse_other(order.job, f"question set {preset.evaluation.questions}", order.inputs.questions, answered)
        verdicts = EvaluationFolder(folder).verdicts()[1]
        if nothing_judged(score.overall) and asked.judge != NONE:
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
                **trained,
            ),
        )
        return folder.name

    return ask


def _margin_of(order: JobOrder, loaded: Loaded, work: Path) -> _Ask:
    """Measures the margin of one cell, at its end or at a checkpoint; returns its folder's name, which holds margin.jsonl and cell.json."""
    asked = order.preset.evaluation

    def ask(cell: Cell, run: _Run | None, step: int | None) -> str:
        folder = _folder(order, cell, run, step, work, [])
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
                target=asked.targets.get(f"{cell.model}/{cell.dataset}"),
                dtype=loaded.dtype,
                overall=score.overall,
                neutral=score.neutral.get("model"),
                questions=[MarginOfQuestion(question_id=q, domain=m.domain, margin=m.value) for q, m in margins(rows).items()],
                **(_of_run(run, step) if run else {}),
            ),
        )
        return folder.name

    return ask


def _folder(order: JobOrder, cell: Cell, run: _Run | None, step: int | None, work: Path, more: list) -> Path:
    asked = digest([order.preset.evaluation.model_dump(mode="json"), *more])[:8]
    name = run.record.run_id if run else cell.model
    return work / EVALUATIONS / (f"{name}.{asked}" if step is None else f"{name}.step{step}.{asked}")


def _of_run(run: _Run, step: int | None) -> dict:
    """What a cell's result takes from its run. A checkpoint has its own loss and adapter, and no curves."""
    record = run.record
    of_run = {"run_id": record.run_id, "spec_sha256": record.spec_sha256, "steps": record.spec.steps}
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
