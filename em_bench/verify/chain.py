"""The hash chain, walked: every link and every number of a run or an evaluation that a CPU can recompute."""

from collections.abc import Iterator
from pathlib import Path

from em_bench.errors import UserError
from em_bench.files import read_jsonl, read_record
from em_bench.harness.belonging import other_revision
from em_bench.records import Response, ResponsesHeader, RunRecord, ScoreRecord, StepRecord, Verdict, VerdictsHeader
from em_bench.verify import checks
from em_bench.verify.checks import ADAPTER, Check, check, same

__all__ = ["Check", "verify", "verify_evaluation", "verify_run"]


def verify_run(folder: Path) -> list[Check]:
    """Checks of a run folder: identity, adapter, log and checkpoints. Raises UserError where run.json cannot be read."""
    run = read_record(folder / "run.json", RunRecord)

    def steps() -> str | None:
        first, rest = read_jsonl(folder / "train.jsonl", StepRecord, StepRecord)
        return checks.steps([first, *rest], run)

    return [
        check("run.identity", "the run's id and hash are those of its spec", lambda: checks.identity(run)),
        check(
            "run.adapter",
            "the adapter's bytes are those that run.json names",
            lambda: same(folder / ADAPTER, run.adapter_sha256),
        ),
        check(
            "run.log",
            "train.jsonl is the log that run.json names",
            lambda: same(folder / "train.jsonl", run.log_sha256),
        ),
        check("run.steps", "the log holds every step once, in order, and ends with the run's narrow loss", steps),
        check(
            "run.checkpoints",
            "every checkpoint's bytes are those that run.json names",
            lambda: _checkpoints(folder, run),
        ),
        check(
            "run.spectrum",
            "the adapter's spectrum, recomputed, is the one in run.json",
            lambda: checks.spectrum(folder / ADAPTER, run),
        ),
    ]


def verify_evaluation(folder: Path) -> list[Check]:
    """Checks of a folder with responses.jsonl, verdicts.jsonl and score.json. Raises UserError where one cannot be read."""
    header, responses = read_jsonl(folder / "responses.jsonl", ResponsesHeader, Response)
    said, verdicts = read_jsonl(folder / "verdicts.jsonl", VerdictsHeader, Verdict)
    score = read_record(folder / "score.json", ScoreRecord)
    return [
        check(
            "responses.counts",
            "every question has the same number of samples, each once",
            lambda: checks.counts(header, responses),
        ),
        check(
            "verdicts.link",
            "the verdicts are of these responses",
            lambda: same(folder / "responses.jsonl", said.responses_sha256) or _forced(said, header),
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
            lambda: same(folder / "verdicts.jsonl", score.verdicts_sha256) or _forced(score, said),
        ),
        check(
            "score.recomputed",
            "every count, rate and interval follows from the verdicts",
            lambda: checks.rescored(score, verdicts),
        ),
    ]


def verify(path: Path) -> Iterator[tuple[Path, list[Check]]]:
    """All runs and evaluations at or below `path`, each with its checks. Raises UserError where there are none."""
    runs = [p.parent for p in sorted(path.rglob("run.json"))]
    evaluations = [p.parent for p in sorted(path.rglob("responses.jsonl"))]
    if not runs and not evaluations:
        raise UserError(
            f"{path}: no run.json and no responses.jsonl at or below it; name a run, an evaluation or a folder of them"
        )
    for folder in runs:
        yield folder, verify_run(folder)
    records = {run.run_id: run for run in (read_record(r / "run.json", RunRecord) for r in runs)}
    for folder in evaluations:
        found = verify_evaluation(folder)
        header, _ = read_jsonl(folder / "responses.jsonl", ResponsesHeader, Response)
        if header.run_id in records:
            run = records[header.run_id]
            found += [
                check(
                    "responses.adapter",
                    "the responses name an adapter of their run",
                    lambda h=header, r=run: _adapter(h, r),
                ),
                _based(header, run),
            ]
        yield folder, found


def unproven(path: Path) -> Iterator[tuple[Path, str]]:
    """What no check can say of the evaluations at or below `path`: whose run is not there, and which were forced."""
    runs = {read_record(p, RunRecord).run_id for p in path.rglob("run.json")}
    for file in sorted(path.rglob("responses.jsonl")):
        header, _ = read_jsonl(file, ResponsesHeader, Response)
        if header.forced:
            yield file.parent, f"forced: the adapter {header.forced}"
        if header.run_id and header.run_id not in runs:
            yield (
                file.parent,
                f"its adapter is not checked: run {header.run_id} is not below {path}; name a folder that holds both",
            )


def _checkpoints(folder: Path, run: RunRecord) -> str | None:
    for step, expected in run.checkpoints.items():
        if problem := same(folder / "checkpoints" / str(step) / ADAPTER.name, expected):
            return f"step {step}: {problem}"
    return None


def _based(header: ResponsesHeader, run: RunRecord) -> Check:
    """The base, and where it is another one that was said so by --force."""
    problem = header.base and other_revision(run.spec.base, header.base)
    found = check(
        "responses.base",
        "the responses are of the base that the adapter was trained on",
        lambda: None if header.forced else problem and f"the adapter {problem}",
    )
    return found.model_copy(update={"detail": f"forced: the adapter {header.forced}"}) if header.forced else found


def _forced(said: VerdictsHeader | ScoreRecord, of: ResponsesHeader | VerdictsHeader) -> str | None:
    return None if said.forced == of.forced else f"forced: says {said.forced}, what it is of says {of.forced}"


def _adapter(header: ResponsesHeader, run: RunRecord) -> str | None:
    expected = run.adapter_sha256 if header.step is None else run.checkpoints.get(header.step)
    return None if header.adapter_sha256 == expected else "the adapter's hash is not the run's"
