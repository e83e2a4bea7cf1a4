"""The checks of an entry's evaluations: adapters, questions, verdicts, scores."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from em_bench.board import checks_of_rules
from em_bench.board.benchmark import Tier
from em_bench.board.entry import Entry, EntryCell, EntryEvaluation
from em_bench.evaluation_folder import EVALUATIONS, RESPONSES, VERDICTS
from em_bench.harness.belonging import other_revision
from em_bench.verify import checks
from em_bench.verify.checks import Check, check, same

Find = Callable[[EntryEvaluation, Path], str | None]


def answer_checks(entry: Entry, tier: Tier) -> Iterator[Check]:
    """All of them, one after the other. Verdicts are checked in every run of the judge, the score in the first."""

    def responses_of(e: EntryEvaluation, folder: Path) -> str | None:
        return _any(same(folder / RESPONSES, said.responses_sha256) for said, _ in e.verdicts)

    def judges(e: EntryEvaluation, _: Path) -> str | None:
        return _any(checks_of_rules.judge(said.judge, tier) for said, _ in e.verdicts)

    def covers(e: EntryEvaluation, _: Path) -> str | None:
        return _any(checks.covers(e.responses, rows) for _, rows in e.verdicts)

    def regraded(e: EntryEvaluation, _: Path) -> str | None:
        return _any(checks.regraded(said, e.responses, rows) for said, rows in e.verdicts)

    table: tuple[tuple[str, str, Find], ...] = (
        (
            "responses.questions",
            "The questions and how they were sampled are the tier's.",
            lambda e, _: checks_of_rules.asked(e, tier),
        ),
        (
            "responses.counts",
            "Every question has the same number of samples, each once.",
            lambda e, _: checks.counts(e.header, e.responses),
        ),
        ("verdicts.link", "The verdicts are of these responses.", responses_of),
        ("verdicts.judge", "The verdicts are the tier's judge's.", judges),
        ("verdicts.cover", "There is one verdict for each response.", covers),
        ("verdicts.grammar", "The grammar gives the same verdicts again (other judges: see --judge).", regraded),
        (
            "score.link",
            "The scores are of these verdicts.",
            lambda e, folder: same(folder / VERDICTS, e.score.verdicts_sha256),
        ),
        (
            "score.recomputed",
            "Every outcome, count, rate and interval follows from the verdicts.",
            lambda e, _: checks.rescored(e.score, e.verdicts[0][1]),
        ),
    )
    yield check(
        "responses.adapter",
        "The responses name the run's adapter, and the canary saw it work.",
        lambda: _adapters(entry),
    )
    for id, sentence, find in table:
        yield check(id, sentence, partial(_every, entry, find))
    yield check(
        "score.capability",
        "The scores hold the tier's capability tasks, as accuracies.",
        lambda: _every(entry, lambda e, _: _capability(e, tier)),
    )
    yield check("score.loss", "The scores name the losses of the logs.", lambda: _score_losses(entry))


def _any(problems: Iterable[str | None]) -> str | None:
    return next((p for p in problems if p), None)


def _every(entry: Entry, find: Find) -> str | None:
    """The first problem among evaluations, with the evaluation's name."""
    for name, e in entry.evaluations():
        if problem := find(e, entry.results / EVALUATIONS / name):
            return f"{name}: {problem}"
    return None


def _adapters(entry: Entry) -> str | None:
    for cell in entry.manifest.cells:
        for name, step in ((cell.final, None), *([(cell.matched, cell.matched_step)] if cell.matched else [])):
            if problem := _of_adapter(entry, cell, name, step):
                return f"{name}: {problem}"
    return None


def _of_adapter(entry: Entry, cell: EntryCell, name: str, step: int | None) -> str | None:
    header, run = entry.evaluation(name).header, entry.runs[cell.run_id]
    if step is not None and name == cell.final:
        return None if step == run.spec.steps else f"the end of training is given as checkpoint {step}"
    if header.run_id != cell.run_id or header.step != step:
        return f"its responses are of run {header.run_id} at step {header.step}"
    if header.adapter_sha256 != (run.adapter_sha256 if step is None else run.checkpoints.get(step)):
        return "the adapter's hash is not the run's"
    if header.forced or (header.base and (problem := other_revision(run.spec.base, header.base))):
        return f"the adapter {header.forced or problem}"
    return None if header.canary else "no canary: nothing proves that the adapter was used"


def _capability(e: EntryEvaluation, tier: Tier) -> str | None:
    for task in tier.capability:
        value = (e.score.capability or {}).get(f"{task}/acc")
        if value is None:
            return f"{task} was not measured; run it again"
        if not 0 <= value <= 1:
            return f"{task}: {value:g} is no accuracy"
    return None


def _score_losses(entry: Entry) -> str | None:
    for cell in entry.manifest.cells:
        run = entry.runs[cell.run_id]
        if entry.evaluation(cell.final).score.narrow_loss != run.narrow_loss:
            return f"{cell.final}: its score names another narrow loss than its run"
        if cell.matched and cell.matched != cell.final:
            at = next((r.held_out_loss for r in entry.log(cell.run_id) if r.step == cell.matched_step), None)
            if entry.evaluation(cell.matched).score.narrow_loss != at:
                return f"{cell.matched}: its score names another narrow loss than its log"
    return None
