"""The hash chain, walked: every link and every number of a run or an evaluation that a CPU can recompute."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from em_bench import run_folder
from em_bench.errors import UserError
from em_bench.evaluation_folder import RESPONSES, EvaluationFolder
from em_bench.files import sha256_file
from em_bench.harness.belonging import other_revision
from em_bench.records import ResponsesHeader, RunRecord, ScoreRecord, Subject, VerdictsHeader
from em_bench.run_folder import RunFolder
from em_bench.verify import checks
from em_bench.verify.checks import Check, check, same, same_file
from em_bench.verify.margin import verify_margin
from em_bench.verify.rescaled import adapters_below, named, rescaled_below, verify_rescaled
from em_bench.verify.withheld import withheld_texts

__all__ = ["Check", "verify", "verify_evaluation", "verify_margin", "verify_run"]


def verify_run(folder: Path) -> list[Check]:
    """Checks of a run folder: identity, adapter, log and checkpoints. Raises UserError where run.json cannot be read."""
    at = RunFolder(folder)
    run = at.record()

    return [
        check("run.identity", "the run's id and hash are those of its spec", lambda: checks.identity(run)),
        check(
            "run.adapter",
            "the adapter's bytes are those that run.json names",
            lambda: same_file(at.weights(), run.adapter_sha256),
        ),
        check(
            "run.log",
            "train.jsonl is the log that run.json names",
            lambda: same_file(at.log_file, run.log_sha256),
        ),
        check(
            "run.steps",
            "the log holds every step once, in order, and ends with the run's narrow loss",
            lambda: checks.steps(at.log(), run),
        ),
        check(
            "run.checkpoints",
            "every checkpoint's bytes are those that run.json names",
            lambda: _checkpoints(at, run),
        ),
        check(
            "run.spectrum",
            "the adapter's spectrum, recomputed, is the one in run.json",
            lambda: checks.spectrum(at.weights(), run),
        ),
    ]


def verify_evaluation(folder: Path) -> list[Check]:
    """Checks of a folder with responses.jsonl, verdicts.jsonl and score.json. Raises UserError where one cannot be read."""
    at = EvaluationFolder(folder)
    header, responses = at.responses()
    said, verdicts = at.verdicts()
    score = at.score()
    return [
        check(
            "responses.counts",
            "every question has the same number of samples, each once",
            lambda: checks.counts(header, responses),
        ),
        check(
            "responses.texts",
            "every text is there, or its hash where the questions may not be republished",
            lambda: withheld_texts(header, responses),
        ),
        check(
            "verdicts.link",
            "the verdicts are of these responses",
            lambda: (
                same("the responses", header.withheld or sha256_file(at.responses_file), said.responses_sha256)
                or _forced(said, header)
            ),
        ),
        check("verdicts.cover", "there is one verdict for each response", lambda: checks.covers(responses, verdicts)),
        check(
            "verdicts.grammar",
            "the grammar gives the same verdicts again",
            lambda: checks.regraded(said, responses, verdicts),
        ),
        check(
            "score.link",
            "the score is of these verdicts",
            lambda: same_file(at.verdicts_file, score.verdicts_sha256) or _forced(score, said),
        ),
        check(
            "score.recomputed",
            "every count, rate and interval follows from the verdicts",
            lambda: checks.rescored(score, verdicts, header.question_set),
        ),
    ]


def verify(path: Path) -> Iterator[tuple[Path, list[Check]]]:
    """All runs and evaluations at or below `path`, each with its checks. Raises UserError where there are none."""
    runs, evaluations, rescaled = list(RunFolder.below(path)), list(EvaluationFolder.below(path)), rescaled_below(path)
    measured = list(EvaluationFolder.margins_below(path))
    if not runs and not evaluations and not rescaled and not measured:
        raise UserError(
            f"{path}: no {run_folder.RECORD} and no {RESPONSES} at or below it; name a run, an evaluation or a folder of them"
        )
    for run in runs:
        yield run.path, verify_run(run.path)
    adapters = adapters_below(path)
    for folder, scaled in rescaled.items():
        yield folder, verify_rescaled(folder, scaled, adapters.get(scaled.source_sha256))
    records = {record.run_id: record for record in (run.record() for run in runs)}
    for evaluation in evaluations:
        found = verify_evaluation(evaluation.path)
        header, _ = evaluation.responses()
        if header.scale is not None:
            found += [named(header, rescaled.values())] if rescaled else []
        elif header.run_id in records:
            record = records[header.run_id]
            found += [
                check(
                    "responses.adapter",
                    "the responses name an adapter of their run",
                    partial(_adapter, header, record),
                ),
                _based(header, record),
            ]
        yield evaluation.path, found
    for evaluation in measured:
        run_id = evaluation.margins()["model"][0].run_id
        yield evaluation.path, verify_margin(evaluation.path, records.get(run_id) if run_id else None)


def unproven(path: Path) -> Iterator[tuple[Path, str]]:
    """What no check can say of the evaluations at or below `path`: whose run is not there, and which were forced."""
    runs = {run.record().run_id for run in RunFolder.below(path)}
    rescaled, adapters = rescaled_below(path), adapters_below(path)
    for folder, record in rescaled.items():
        if record.source_sha256 not in adapters:
            yield folder, f"the adapter that was rescaled is not checked: it is not below {path}; name a folder that holds both"
    headers: list[tuple[EvaluationFolder, Subject]] = [(e, e.responses()[0]) for e in EvaluationFolder.below(path)]
    headers += [(e, e.margins()["model"][0]) for e in EvaluationFolder.margins_below(path)]
    for evaluation, header in headers:
        if header.forced:
            yield evaluation.path, f"forced: the adapter {header.forced}"
        if header.scale is not None and not rescaled:
            yield evaluation.path, f"its rescaled adapter is not checked: it is not below {path}; name a folder that holds both"
        elif header.scale is None and header.run_id and header.run_id not in runs:
            yield (
                evaluation.path,
                f"its adapter is not checked: run {header.run_id} is not below {path}; name a folder that holds both",
            )


def _checkpoints(at: RunFolder, run: RunRecord) -> str | None:
    for step, expected in run.checkpoints.items():
        if problem := same_file(at.weights(step), expected):
            return f"step {step}: {problem}"
    return None


def _based(header: ResponsesHeader, run: RunRecord) -> Check:
    """The base, and where it is another one that was said so by --force."""
    problem = other_revision(run.spec.base, header.base) if header.base else None
    found = check(
        "responses.base",
        "the responses are of the base that the adapter was trained on",
        lambda: f"the adapter {problem}" if problem and not header.forced else None,
    )
    return found.model_copy(update={"detail": f"forced: the adapter {header.forced}"}) if header.forced else found


def _forced(said: VerdictsHeader | ScoreRecord, of: ResponsesHeader | VerdictsHeader) -> str | None:
    return None if said.forced == of.forced else f"forced: says {said.forced}, what it is of says {of.forced}"


def _adapter(header: ResponsesHeader, run: RunRecord) -> str | None:
    expected = run.adapter_sha256 if header.step is None else run.checkpoints.get(header.step)
    return None if header.adapter_sha256 == expected else "the adapter's hash is not the run's"
