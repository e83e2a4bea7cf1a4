"""The checks of an entry's evaluations: adapters, questions, verdicts, scores."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from em_bench.board import checks_of_rules
from em_bench.board.benchmark import Tier
from em_bench.board.entry import Entry, EntryCell, EntryEvaluation
from em_bench.board.score import judge_of
from em_bench.harness.belonging import other_revision
from em_bench.verify import checks
from em_bench.verify.checks import Check, check, same
from em_bench.verify.withheld import withheld_texts

Find = Callable[[EntryEvaluation], str | None]


def answer_checks(entry: Entry, tier: Tier) -> Iterator[Check]:
    """All of them, one after the other. Verdicts are checked in every run of the judge, the score in the first."""

    def responses_of(e: EntryEvaluation) -> str | None:
        return _any(same("the responses", e.responses_sha256, said.responses_sha256) for said, _ in e.verdicts)

    rule = judge_of(entry, tier)

    def judges(e: EntryEvaluation) -> str | None:
        return _any(rule.unlike(said.judge) for said, _ in e.verdicts)

    def covers(e: EntryEvaluation) -> str | None:
        return _any(checks.covers(e.responses, rows) for _, rows in e.verdicts)

    def regraded(e: EntryEvaluation) -> str | None:
        return _any(checks.regraded(said, e.responses, rows) for said, rows in e.verdicts)

    table: tuple[tuple[str, str, Find], ...] = (
        (
            "responses.questions",
            "The questions and how they were sampled are the tier's.",
            lambda e: checks_of_rules.asked(e, tier),
        ),
        (
            "responses.counts",
            "Every question has the same number of samples, each once.",
            lambda e: checks.counts(e.header, e.responses),
        ),
        (
            "responses.texts",
            "Every text is there, or its hash where the questions may not be republished.",
            lambda e: withheld_texts(e.header, e.responses),
        ),
        ("verdicts.link", "The verdicts are of these responses.", responses_of),
        ("verdicts.judge", "The verdicts are the tier's judge's.", judges),
        ("verdicts.cover", "There is one verdict for each response.", covers),
        ("verdicts.grammar", "The grammar gives the same verdicts again (other judges: see --judge).", regraded),
        (
            "score.link",
            "The scores are of these verdicts.",
            lambda e: same("the verdicts", e.verdicts_sha256[0], e.score.verdicts_sha256),
        ),
        (
            "score.recomputed",
            "Every outcome, count, rate and interval follows from the verdicts.",
            lambda e: checks.rescored(e.score, e.verdicts[0][1], e.header.question_set),
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
        "Behind the smaller loss the scores hold the tier's capability tasks, as accuracies.",
        lambda: _capabilities(entry, tier),
    )
    yield check("score.loss", "The scores name the losses of the logs.", lambda: _score_losses(entry))


def _any(problems: Iterable[str | None]) -> str | None:
    return next((p for p in problems if p), None)


def _every(entry: Entry, find: Find) -> str | None:
    """The first problem among evaluations, with the evaluation's name."""
    for name, e in entry.evaluations():
        if problem := find(e):
            return f"{name}: {problem}"
    return None


def _adapters(entry: Entry) -> str | None:
    for cell in entry.manifest.cells:
        last = entry.runs[cell.run_id].spec.steps
        for at, name in cell.evaluated.items():
            step = None if at == last else at
            if problem := _of_adapter(entry, cell, name, step):
                return f"{name}: {problem}"
    return None


def _of_adapter(entry: Entry, cell: EntryCell, name: str, step: int | None) -> str | None:
    header, run = entry.evaluation(name).header, entry.runs[cell.run_id]
    if header.run_id != cell.run_id or header.step != step:
        return f"its responses are of run {header.run_id} at step {header.step}"
    if header.adapter_sha256 != (run.adapter_sha256 if step is None else run.checkpoints.get(step)):
        return "the adapter's hash is not the run's"
    if header.forced or (header.base and (problem := other_revision(run.spec.base, header.base))):
        return f"the adapter {header.forced or problem}"
    return None if header.canary else "no canary: nothing proves that the adapter was used"


def _capabilities(entry: Entry, tier: Tier) -> str | None:
    for cell in entry.manifest.cells:
        loss = tier.losses_of(cell.model, cell.dataset)[-1]
        there = [r.step for r in entry.log(cell.run_id) if r.step in cell.evaluated and (r.held_out_loss or 0.0) <= loss]
        name = cell.evaluated[min(there, default=max(cell.evaluated))]
        if problem := _capability(entry.evaluation(name), tier):
            return f"{name}: {problem}"
    return None


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
        losses = {r.step: r.held_out_loss for r in entry.log(cell.run_id)}
        for step, name in cell.evaluated.items():
            if entry.evaluation(name).score.narrow_loss != losses.get(step):
                return f"{name}: its score names another narrow loss than its log"
    return None
