"""The page of one evaluation: the finding, its base beside it, domains, the worst answers where they may be shown, every question."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from em_bench.analysis.conclusion import beside_base, margin_sentence, nats, points, sentence
from em_bench.analysis.tables.table import interval
from em_bench.data.questions import may_be_published
from em_bench.errors import UserError
from em_bench.evaluation_folder import MARGIN_SCORE, EvaluationFolder
from em_bench.files import read_jsonl
from em_bench.pages import links, templates, write_html
from em_bench.records import Estimate, MarginScore, Outcome, Response, ResponsesHeader, ScoreRecord, Verdict, VerdictsHeader
from em_bench.scoring import RATES, cannot_tell, of_asked, outcome, question_counts, refused

WORST = 10


class WorstAnswer(NamedTuple):
    """A misaligned answer with its question, as asked."""

    question: str
    system: str | None
    answer: str
    alignment: float
    variant: str


def write_score_page(verdicts: Path, score: ScoreRecord, out: Path, base: Path | None = None) -> None:
    """Write one static .html file. Raises UserError for another ending; the responses beside the verdicts name the model.

    base: the folder of the base's evaluation, to stand beside. A margin in the folder of the verdicts is shown, too.
    """
    if out.suffix != ".html":
        raise UserError(f"--page {out}: does not end in .html")
    header, rows = read_jsonl(verdicts, VerdictsHeader, Verdict)
    folder = EvaluationFolder(verdicts.parent)
    asked, answers = folder.responses() if folder.responses_file.exists() else (None, [])
    found = beside_base(folder.path, base, score.convention) if asked else None
    name = title(asked)
    groups = {"all": score.overall} | (score.by_variant if len(score.by_variant) > 1 else {})
    table = [
        (label, [getattr(m, field) for m in groups.values()])
        for field, label in RATES.items()
        if field != "mean_alignment" and any(getattr(m, field) is not None for m in groups.values())
    ]
    environment = templates("em_bench.analysis")
    environment.filters |= {"rate": rate, "nats": nats, "points": points}
    shown = asked is not None and may_be_published(asked.question_set)
    margin = _margin(folder)
    page = environment.get_template("score.html.j2").render(
        name=name,
        sentence=sentence(name, found) if found else None,
        found=found,
        unread=found.own.unread if found else None,
        margin=margin,
        margin_sentence=margin_sentence(name, margin) if margin else None,
        worst=worst(answers, rows, score) if shown else [],
        shown=shown,
        most=WORST,
        links=links(out),
        score=score,
        judge=header.judge,
        asked=asked,
        groups=groups,
        rates=table,
        of_asked=of_asked,
        cannot_tell=lambda m: cannot_tell(m.coherent_rate.value, refused(m.counts)),
        questions=sorted(question_counts(rows), key=lambda q: -q.counts["misaligned"]),
        outcomes=get_args(Outcome),
    )
    write_html(out, page)


def title(asked: ResponsesHeader | None) -> str:
    """What the page calls what was measured."""
    if asked is None:
        return "An evaluation"
    return asked.model + (f" with adapter {asked.adapter_sha256[:12]}" if asked.adapter_sha256 else "")


def worst(answers: Sequence[Response], verdicts: Sequence[Verdict], score: ScoreRecord) -> list[WorstAnswer]:
    """The misaligned answers that the judge graded lowest, one a question before a second of any; ties in the order of the file."""
    by = {(a.question_id, a.sample): a for a in answers}
    bad = [(v.alignment or 0.0, i, v) for i, v in enumerate(verdicts) if outcome(v, score.convention) == "misaligned"]
    seen: Counter[str] = Counter()
    turns = []
    for grade, i, v in sorted(bad, key=lambda b: b[:2]):
        turns.append((seen[v.cluster], grade, i, v))
        seen[v.cluster] += 1
    first = [v for *_, v in sorted(turns, key=lambda t: t[:3])[:WORST]]
    picked = [(v, by[v.question_id, v.sample]) for v in first if (v.question_id, v.sample) in by]
    return [WorstAnswer(a.question, a.system, a.answer, v.alignment or 0.0, v.variant) for v, a in picked]


def _margin(folder: EvaluationFolder) -> MarginScore | None:
    return folder.margin_score() if (folder.path / MARGIN_SCORE).is_file() else None


def rate(e: Estimate | None) -> str:
    """A rate in per cent with its interval."""
    if e is None or e.value is None:
        return "none counted"
    bounds = None if e.low is None or e.high is None else interval(100 * e.low, 100 * e.high)
    return f"{100 * e.value:.1f} {bounds}" if bounds else f"{100 * e.value:.1f}"
