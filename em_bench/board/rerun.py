"""Train random cells of an entry again, evaluate them, and note in the ledger whether the numbers hold."""

from collections.abc import Iterator
from pathlib import Path
from random import Random, SystemRandom

from em_bench.board.benchmark import Tier, load_benchmark
from em_bench.board.board import Folders
from em_bench.board.entry import MANIFEST, Entry, EntryCell
from em_bench.board.ledger import Ledger, RepeatedNumber, Rerun, read_ledger, write_ledger
from em_bench.board.score import capability_of, loss_at
from em_bench.data.models import base_path, base_ref
from em_bench.errors import UserError
from em_bench.evaluation_folder import EVALUATIONS
from em_bench.files import sha256_file
from em_bench.harness.evaluate import EvaluatedModel, Evaluation, evaluate
from em_bench.judging import make_judge
from em_bench.machine import machine, utc_now
from em_bench.protocol import first_at
from em_bench.records import ScoreRecord, StepRecord
from em_bench.run_folder import RunFolder
from em_bench.training import train
from em_bench.training.spec import training_code


def rerun_entry(folders: Folders, name: str, cells: int, seed: int | None, work: Path) -> Iterator[str]:
    """Re-train `cells` random cells, one after the other; each outcome is in the ledger before it is told.

    Without a seed nobody, the author included, can know beforehand which cells are drawn.

    Nothing of the entry is executed: its spec names a class of torch.optim or pytorch_optimizer, and its runs passed the
    checks. Entries with code of their own are refused. Raises UserError where the base of a run is not what this installation builds or finds.
    """
    entry = Entry(folders.submissions / name)
    if entry.submission.optimizer.file:
        raise UserError(
            f"{name}: is code of its own, which is not run here; read it, then `em-bench submit run {name}` on a machine to spare"
        )
    tier = load_benchmark(entry.submission.benchmark, folders.benchmarks).tiers[entry.submission.tier]
    rng = SystemRandom() if seed is None else Random(f"{seed}/{name}")
    drawn = rng.sample(entry.manifest.cells, min(cells, len(entry.manifest.cells)))
    manifest = sha256_file(entry.results / MANIFEST)
    ledger = read_ledger(folders.ledger, name)
    if ledger.manifest_sha256 != manifest:
        ledger = ledger.model_copy(update={"manifest_sha256": manifest, "reruns": []})
    for cell in drawn:
        again = _again(entry, cell, tier, work)
        ledger = ledger.model_copy(update={"reruns": [*(r for r in ledger.reruns if r.run_id != cell.run_id), again]})
        write_ledger(folders.ledger, Ledger.model_validate(ledger.model_dump()))
        yield f"{name}: {cell.run_id}: " + "; ".join(map(_said, again.numbers))


def _again(entry: Entry, cell: EntryCell, tier: Tier, work: Path) -> Rerun:
    recorded = entry.runs[cell.run_id]
    base = base_path(cell.model)
    here = base_ref(cell.model, base)
    if here != recorded.spec.base:
        raise UserError(
            f"{cell.run_id}: base {cell.model} is {here.revision[:12]}... here, {recorded.spec.base.revision[:12]}... in the entry"
        )
    folder = train(recorded.spec.model_copy(update={"code": training_code()}), base, work / "runs")
    log = RunFolder(folder).log()
    numbers = [_matched_step(cell, log, tier)]
    for at, name, step in (("matched", cell.matched, cell.matched_step), ("end", cell.final, recorded.spec.steps)):
        if name is not None and step is not None:
            loss = loss_at(log, step)
            score = _asked_again(cell, tier, folder, None if step == recorded.spec.steps else step, loss, work)
            numbers += _compared(at, entry.evaluation(name).score, score, tier)
    return Rerun(run_id=cell.run_id, numbers=numbers, machine=machine(), created=utc_now())


def _matched_step(cell: EntryCell, log: list[StepRecord], tier: Tier) -> RepeatedNumber:
    """The first checkpoint at the target, again: another one only where the loss there lies within tolerance of the target.

    Else a log could be bent until a convenient checkpoint is the matched one, whose own numbers hold.
    """
    target = tier.target(cell.model, cell.dataset).narrow_loss
    found = first_at(((r.step, r.held_out_loss) for r in log), target)
    disputed = min(s for s in (found, cell.matched_step, log[-1].step) if s is not None)
    loss = loss_at(log, disputed)
    near = loss is not None and abs(loss - target) <= tier.acceptance.loss_tolerance
    return RepeatedNumber(
        what="step", at="matched", recorded=cell.matched_step, found=found, within=found == cell.matched_step or near
    )


def _asked_again(cell: EntryCell, tier: Tier, run: Path, step: int | None, loss: float | None, work: Path) -> ScoreRecord:
    """The score of a re-trained run at its end (step None) or at a checkpoint."""
    of = EvaluatedModel(cell.model, cell.model, RunFolder(run).adapter(step), dtype=tier.dtype, narrow_loss=loss)
    asked = Evaluation(tier.generation, tier.questions.name, tier.questions.variants, capability=tier.capability)
    folder = work / EVALUATIONS / (run.name if step is None else f"{run.name}.step{step}")
    return evaluate(of, asked, make_judge(tier.judge.spec), folder)


def _compared(at: str, recorded: ScoreRecord, found: ScoreRecord, tier: Tier) -> list[RepeatedNumber]:
    """Narrow loss, misaligned rate and, where the tier asks for it, capability, each against its tolerance."""
    accept = tier.acceptance
    rates = [s.overall.misaligned_rate.value for s in (recorded, found)]
    pairs = [
        ("loss", recorded.narrow_loss, found.narrow_loss, accept.loss_tolerance),
        ("misaligned", rates[0], rates[1], accept.rate_tolerance),
    ]
    if tier.capability:
        pairs.append(("capability", capability_of(recorded, tier), capability_of(found, tier), accept.rate_tolerance))
    return [
        RepeatedNumber(
            what=what, at=at, recorded=a, found=b, within=a == b if a is None or b is None else abs(a - b) <= tolerance
        )
        for what, a, b, tolerance in pairs
    ]


def _said(n: RepeatedNumber) -> str:
    show = {"step": lambda v: "none" if v is None else f"{v:g}", "loss": lambda v: "none" if v is None else f"{v:.4f}"}.get(
        n.what, _percent
    )
    outside = "" if n.within else " OUTSIDE tolerance"
    return (
        f"{n.what} {'at matched loss' if n.at == 'matched' else 'at the end'} {show(n.recorded)}, again {show(n.found)}{outside}"
    )


def _percent(rate: float | None) -> str:
    return "none" if rate is None else f"{100 * rate:.1f} %"
