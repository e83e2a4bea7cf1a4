"""The checks of an evaluation that measured the margin: its log-likelihoods, its questions, its score, its cell."""

from collections import defaultdict
from pathlib import Path

from em_bench.data.questions import answered, question_sets, questions_sha256
from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.files import sha256_file
from em_bench.harness.belonging import other_revision
from em_bench.records import AnswerLogprob, MarginHeader, MarginOfQuestion, Record, RunRecord
from em_bench.scoring import margins, score_margin
from em_bench.verify.checks import Check, check

Side = tuple[str, str]


def verify_margin(folder: Path, run: RunRecord | None = None) -> list[Check]:
    """Checks of a folder with margin.jsonl and margin.json; `run` is the adapter's. Raises UserError where one cannot be read."""
    at = EvaluationFolder(folder)
    found, said = at.margins(), at.margin_score()
    if "model" not in found:
        raise UserError(f"{at.margin_file()}: no such file")
    header, _ = found["model"]
    checks = [
        check("margin.rows", "every answer of every question is read once, and none is likelier than certain", lambda: _rows(at)),
        check("margin.questions", "the answers are those of the question set, where em_bench has it", lambda: _questions(at)),
        check("margin.score", "every margin, shift and interval follows from the log-likelihoods", lambda: _rescored(at)),
    ]
    if at.cell_file.exists():
        checks.append(check("margin.cell", "the cell says what margin.jsonl says", lambda: _cell(at)))
    if run:
        checks.append(
            check("margin.adapter", "the margin is of an adapter of its run, on its base", lambda: _adapter(header, run))
        )
    if header.forced or said.forced:
        checks.append(check("margin.forced", "a forced adapter is named so in the score", lambda: _forced(header, said.forced)))
    return checks


def _sides(rows: list[AnswerLogprob]) -> dict[Side, list[AnswerLogprob]]:
    sides: dict[Side, list[AnswerLogprob]] = defaultdict(list)
    for r in rows:
        sides[r.question_id, r.side].append(r)
    return sides


def _rows(at: EvaluationFolder) -> str | None:
    for role, (_, rows) in at.margins().items():
        for (question, side), found in _sides(rows).items():
            if [r.number for r in found] != [*range(1, len(found) + 1)]:
                return f"{role}: {question}: {side} answers are not numbered 1 to {len(found)}"
        if impossible := next((r for r in rows if r.nats > 0), None):
            return f"{role}: {impossible.question_id}: a log-likelihood of {impossible.nats:.4g}"
    return None


def _questions(at: EvaluationFolder) -> str | None:
    """The set's own questions, as many answers of each as were read, have the hash that the header says and the bytes of the rows."""
    header, rows = at.margins()["model"]
    if header.question_set not in question_sets():
        return None  # somebody's own file: its name is no reason to read a file of this machine
    own = {q.id: q for q in answered(header.question_set)}
    sides = _sides(rows)
    picked = []
    for name in dict.fromkeys(r.question_id for r in rows):
        if name not in own:
            return f"{name} is no question of {header.question_set}"
        counts = {side: len(sides[name, side]) for side in ("aligned", "misaligned")}
        picked.append(own[name].model_copy(update={side: getattr(own[name], side)[:n] for side, n in counts.items()}))
        for side in counts:
            expected = [len(a.encode()) for a in getattr(picked[-1], side)]
            if [r.bytes for r in sides[name, side]] != expected or any(r.domain != own[name].domain for r in sides[name, side]):
                return f"{name}: {side} answers are others than the set's"
    return None if questions_sha256(picked) == header.questions_sha256 else f"questions are others than {header.question_set}'s"


def _rescored(at: EvaluationFolder) -> str | None:
    return _difference(score_margin(at), at.margin_score())


def _cell(at: EvaluationFolder) -> str | None:
    cell, (header, rows) = at.cell_margin(), at.margins()["model"]
    if cell.margin_sha256 != sha256_file(at.margin_file()):
        return "it is of another margin.jsonl"
    if (cell.run_id, cell.step, cell.adapter_sha256) != (header.run_id, header.step, header.adapter_sha256):
        return "it is of another adapter"
    expected = [MarginOfQuestion(question_id=q, domain=m.domain, margin=m.value) for q, m in margins(rows).items()]
    if cell.questions != expected:
        return "its margins do not follow from the log-likelihoods"
    score = at.margin_score()
    return (
        None
        if (cell.overall, cell.neutral) == (score.overall, score.neutral.get("model"))
        else "it says other numbers than margin.json"
    )


def _adapter(header: MarginHeader, run: RunRecord) -> str | None:
    expected = run.adapter_sha256 if header.step is None else run.checkpoints.get(header.step)
    if header.adapter_sha256 != expected:
        return "the adapter's hash is not the run's"
    problem = other_revision(run.spec.base, header.base) if header.base else None
    return f"the adapter {problem}" if problem and not header.forced else None


def _forced(header: MarginHeader, said: str | None) -> str | None:
    return None if header.forced == said else f"the score says {said}, margin.jsonl {header.forced}"


def _difference(again: Record, said: Record) -> str | None:
    return next(
        (
            f"{name}: differs from the recomputed one"
            for name in type(said).model_fields
            if getattr(again, name) != getattr(said, name)
        ),
        None,
    )
