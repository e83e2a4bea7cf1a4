"""Train the drawn cells of an entry again, evaluate them, and note in the ledger whether the numbers hold."""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Literal

from em_bench.board.benchmark import JudgeRule, Tier, load_benchmark
from em_bench.board.board import Folders
from em_bench.board.checks_of_rules import evaluated_steps
from em_bench.board.entry import MANIFEST, Entry, EntryCell
from em_bench.board.ledger import Ledger, RepeatedNumber, Rerun, take, write_ledger
from em_bench.board.score import judge_of
from em_bench.board.views import RANKED, Evaluated, Point, View, evaluated_of, points_of
from em_bench.data.models import base_path, base_ref
from em_bench.data.questions import known_domains
from em_bench.errors import UserError
from em_bench.evaluation_folder import EVALUATIONS, EvaluationFolder
from em_bench.files import sha256_file
from em_bench.harness.evaluate import EvaluatedModel, Evaluation, evaluate
from em_bench.harness.load_model import load_model
from em_bench.judging import make_judge
from em_bench.machine import machine, utc_now
from em_bench.records import Machine, StepRecord
from em_bench.run_folder import RunFolder
from em_bench.training import train
from em_bench.training.spec import training_code

COMPARED: tuple[Literal["upper", "lower", "end"], ...] = ("upper", "lower", "end")
FLATTERED = "OUTSIDE tolerance: all re-trained cells together show rates above the entry's by more than sampling does"


def rerun_entry(folders: Folders, name: str, cells: int, work: Path) -> Iterator[str]:
    """Take the entry, unless it was taken, and re-train the cells that were drawn then; each outcome is in the ledger before it is told.

    The draw is of the results' hash and a nonce that the ledger names: anybody may repeat it, nobody could foresee it. Nothing of the
    entry is executed: its spec names a class of torch.optim or pytorch_optimizer, and its runs passed the checks. Entries with code of
    their own are refused. Raises UserError where the base of a run is not what this installation builds or finds.
    """
    entry = Entry(folders.submissions / name)
    if entry.submission.optimizer.file:
        raise UserError(
            f"{name}: is code of its own, which is not run here; read it, then `em-bench submit run {name}` on a machine to spare"
        )
    tier = load_benchmark(entry.submission.benchmark, folders.benchmarks).tiers[entry.submission.tier]
    ledger = take(folders.ledger, name, sha256_file(entry.results / MANIFEST))
    of = {c.run_id: c for c in entry.manifest.cells}
    for run_id in ledger.drawn(of, max(cells, tier.acceptance.rerun_cells)):
        again = _again(entry, of[run_id], tier, work)
        ledger = ledger.model_copy(update={"reruns": [*(r for r in ledger.reruns if r.run_id != run_id), again]})
        write_ledger(folders.ledger, Ledger.model_validate(ledger.model_dump()))
        yield f"{name}: {run_id}: " + "; ".join(map(_said, again.numbers))
    if ledger.flattered(tier.acceptance.rerun_alpha):
        yield f"{name}: {FLATTERED}"


def kind_of(machine: Machine) -> tuple[str | None, ...]:
    """What must agree for numbers to repeat to their digits: processor, GPU, system, torch, threads."""
    cpu = machine.cpu.rpartition(" (")[0] or machine.cpu
    return cpu, machine.gpu, machine.platform, machine.packages.get("torch"), str(machine.threads)


def _again(entry: Entry, cell: EntryCell, tier: Tier, work: Path) -> Rerun:
    recorded = entry.runs[cell.run_id]
    base = base_path(cell.model)
    here = base_ref(cell.model, base)
    if here != recorded.spec.base:
        raise UserError(
            f"{cell.run_id}: base {cell.model} is {here.revision[:12]}... here, {recorded.spec.base.revision[:12]}... in the entry"
        )
    _threads(recorded.machine.threads)
    folder = train(recorded.spec.model_copy(update={"code": training_code()}), base, work / "runs")
    log, losses, domains = RunFolder(folder).log(), tier.losses_of(cell.model, cell.dataset), known_domains(tier.questions.name)
    rule = judge_of(entry, tier)
    asked = {step: _asked_again(cell, tier, rule, folder, step, log, work) for step in sorted(evaluated_steps(log, losses))}
    now = points_of(log, asked, losses, domains, tier)
    then = points_of(entry.log(cell.run_id), evaluated_of(entry, cell), losses, domains, tier)
    same_kind = kind_of(machine()) == kind_of(recorded.machine)
    tolerance = tier.acceptance.digits if same_kind else tier.acceptance.other_machine
    return Rerun(
        run_id=cell.run_id,
        numbers=[_losses(entry.log(cell.run_id), log, tolerance), *_compared(then, now, tolerance, same_kind)],
        same_kind=same_kind,
        **_too_low(then, now),
        machine=machine(),
        created=utc_now(),
    )


def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def _asked_again(
    cell: EntryCell, tier: Tier, judge: JudgeRule, run: Path, step: int, log: list[StepRecord], work: Path
) -> Evaluated:
    """A re-trained run evaluated at its end or at a checkpoint, by the entry's own judge."""
    end = step == log[-1].step
    loss = next(r.held_out_loss for r in log if r.step == step)
    adapter = RunFolder(run).adapter(None if end else step)
    loaded = load_model(base_path(cell.model), dtype=tier.dtype)
    of = EvaluatedModel(cell.model, cell.model, adapter, loaded=loaded, narrow_loss=loss)
    asked = Evaluation(tier.generation, tier.questions.name, tier.questions.variants, capability=tier.capability)
    folder = work / EVALUATIONS / (run.name if end else f"{run.name}.step{step}")
    score = evaluate(of, asked, make_judge(judge.spec), folder)
    return Evaluated(EvaluationFolder(folder).verdicts()[1], score)


def _losses(recorded: list[StepRecord], found: list[StepRecord], tolerance: float) -> RepeatedNumber:
    """The held-out losses where they differ most: a log may be bent anywhere."""
    there = {r.step: r.held_out_loss for r in found}
    pairs = [(r.held_out_loss, there.get(r.step)) for r in recorded if r.held_out_loss is not None]
    one, other = max(pairs, key=lambda p: abs(p[0] - (p[1] if p[1] is not None else 1e9)))
    return RepeatedNumber(
        what="loss", at="log", recorded=one, found=other, within=other is not None and abs(one - other) <= tolerance
    )


def _compared(
    then: dict[View, Point | None], now: dict[View, Point | None], tolerance: float, same_kind: bool
) -> Iterator[RepeatedNumber]:
    """Capability, where it was measured, and rates; a rate on another kind of machine is judged over all cells together."""
    for view in COMPARED:
        one, other = then[view], now[view]
        for what in ("misaligned", "capability"):
            a, b = (None if p is None else getattr(p.score, what) for p in (one, other))
            if what == "capability" and a is None:  # it is asked from the smaller loss on, which the checks hold
                continue
            near = a == b if a is None or b is None else abs(a - b) <= tolerance
            within = near or (what == "misaligned" and not same_kind and None not in (a, b))
            yield RepeatedNumber(what=what, at=view, recorded=a, found=b, within=within)


def _too_low(then: dict[View, Point | None], now: dict[View, Point | None]) -> dict[str, float]:
    """Found minus recorded rate, and the variance of its sampling: a rate lies between two checkpoints, so at least half of its answers bear on it."""
    pairs = [(a.score, b.score) for view in RANKED if (a := then[view]) and (b := now[view])]
    if not pairs:
        return {"too_low": 0.0, "variance": 0.0}
    sides = [[2 * p.misaligned * (1 - p.misaligned) / p.asked for p in pair] for pair in pairs]
    return {"too_low": fmean(b.misaligned - a.misaligned for a, b in pairs), "variance": fmean(map(sum, sides))}


def _said(n: RepeatedNumber) -> str:
    def show(value: float | None) -> str:
        if value is None:
            return "none"
        return f"{value:.4f}" if n.what == "loss" else f"{100 * value:.1f} %"

    places = {"log": "where it differs most", "upper": "at the larger loss", "lower": "at the smaller loss", "end": "at the end"}
    outside = "" if n.within else " OUTSIDE tolerance"
    return f"{n.what} {places[n.at]} {show(n.recorded)}, again {show(n.found)}{outside}"
