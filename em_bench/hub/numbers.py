"""What a run's own evaluations say of it, as a card shows it: at each narrow loss that the run was aimed at, and at the end."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from em_bench.data.questions import clusters, known_domains
from em_bench.evaluation_folder import EVALUATIONS, MARGIN_SCORE, EvaluationFolder
from em_bench.files import digest, parse_record
from em_bench.records import Estimate, MarginScore, ResponsesHeader, RunRecord, ScoreRecord, VerdictsHeader
from em_bench.run_folder import RUNS, RunFolder
from em_bench.scoring import cannot_tell, question_counts
from em_bench.scoring.levels import COHERENT, OF_ASKED, OF_COHERENT, REFUSED, Counts, Measured, level
from em_bench.scoring.matched_loss import AtLoss, Point, at_loss, by_cluster


class Judged(NamedTuple):
    """An evaluation of an adapter of the run."""

    at: EvaluationFolder
    header: ResponsesHeader
    said: VerdictsHeader
    score: ScoreRecord


class Rates(NamedTuple):
    """What the answers of one evaluation say, with intervals of its questions, and whether they may be read."""

    of_asked: Estimate
    of_coherent: Estimate
    coherent: Estimate
    verdict: str


class Numbers(NamedTuple):
    """One question set under one judge. `end` is None where only checkpoints were evaluated; `judged_at` is when it was."""

    question_set: str
    judge: str
    losses: list[AtLoss]
    end: Rates | None
    judged_at: str


def default_evaluations(run: Path) -> Path:
    """Where a sweep keeps the evaluations of a run: WORK/evaluations beside WORK/runs; elsewhere the run's own folder."""
    return run.parent.parent / EVALUATIONS if run.parent.name == RUNS else run


def judged_of(run: RunRecord, top: Path) -> list[Judged]:
    """Every whole evaluation below `top` of an adapter that the run made, unscaled and on its own base."""
    found = []
    for at in EvaluationFolder.below(top):
        if not (at.score_file.exists() and at.verdicts_file.exists()):
            continue
        header = _header(at)
        expected = run.adapter_sha256 if header.step is None else run.checkpoints.get(header.step)
        if header.run_id == run.run_id and header.adapter_sha256 == expected and header.scale is None and not header.forced:
            found.append(Judged(at, header, at.verdicts()[0], at.score()))
    return found


def _header(at: EvaluationFolder) -> ResponsesHeader:
    """The first line alone: a sweep has thousands of these files."""
    with at.responses_file.open(encoding="utf-8") as f:
        return parse_record(f.readline(), ResponsesHeader, f"{at.responses_file}:1")


def margins_of(run: RunRecord, top: Path) -> list[MarginScore]:
    """The margins of the adapter at the end."""
    found = [at for at in EvaluationFolder.margins_below(top) if (at.path / MARGIN_SCORE).exists()]
    headers = ((at, at.margins()["model"][0]) for at in found)
    return [at.margin_score() for at, h in headers if h.adapter_sha256 == run.adapter_sha256 and h.scale is None]


def numbers(run: RunFolder, judged: Iterable[Judged]) -> list[Numbers]:
    """By question set and judge; what was asked otherwise (other questions, other sampling) stands apart. Intervals are of the questions."""
    groups: dict[str, list[Judged]] = {}
    for j in judged:
        key = digest(
            [j.header.questions_sha256, j.header.generation.model_dump(mode="json"), j.said.judge.model_dump(mode="json")]
        )
        groups.setdefault(key, []).append(j)
    return [_group(run, group) for group in groups.values()]


def judge_name(said: VerdictsHeader) -> str:
    """The judge in short."""
    return said.judge.kind if said.judge.kind == said.judge.model else f"{said.judge.kind}:{said.judge.model}"


def rates(at: EvaluationFolder, question_set: str) -> Rates:
    """Of one evaluation by itself."""
    measured = [Measured(None, ((_counts(at, question_set), 1.0),))]
    coherent = level(measured, COHERENT)
    verdict = cannot_tell(coherent.value, level(measured, REFUSED).value) or "measured"
    return Rates(level(measured, OF_ASKED), level(measured, OF_COHERENT), coherent, verdict)


def _counts(at: EvaluationFolder, question_set: str) -> dict[str, Counts]:
    domains = known_domains(question_set) if clusters(question_set) else {}
    return by_cluster(question_counts(at.verdicts()[1], domains), lambda q: q.domain or q.cluster)


def _group(run: RunFolder, group: list[Judged]) -> Numbers:
    record, name, said = run.record(), group[0].header.question_set, group[0].said
    by_step = {j.header.step or record.spec.steps: _counts(j.at, name) for j in group}
    points = [Point(r.step, r.held_out_loss, by_step.get(r.step)) for r in run.log() if r.held_out_loss is not None]
    losses = [at_loss(points, target) for target in record.spec.targets]
    end = next((j for j in group if j.header.step is None), None)
    return Numbers(name, judge_name(said), losses, end and rates(end.at, name), said.created)
