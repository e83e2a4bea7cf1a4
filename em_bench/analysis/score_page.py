"""The page of one evaluation: its rates with their denominators, and the outcomes of every question. No answer is shown."""

from pathlib import Path
from typing import get_args

from em_bench.analysis.preset_page import rate
from em_bench.errors import UserError
from em_bench.evaluation_folder import RESPONSES
from em_bench.files import read_jsonl, write_text
from em_bench.pages import templates
from em_bench.records import Outcome, Response, ResponsesHeader, ScoreRecord, Verdict, VerdictsHeader
from em_bench.scoring import RATES, cannot_tell, of_asked, question_counts


def write_score_page(verdicts: Path, score: ScoreRecord, out: Path) -> None:
    """Write one static .html file. Raises UserError for another ending; the responses beside the verdicts name the model."""
    if out.suffix != ".html":
        raise UserError(f"--page {out}: does not end in .html")
    header, rows = read_jsonl(verdicts, VerdictsHeader, Verdict)
    responses = verdicts.with_name(RESPONSES)
    asked = read_jsonl(responses, ResponsesHeader, Response)[0] if responses.exists() else None
    groups = {"all": score.overall} | (score.by_variant if len(score.by_variant) > 1 else {})
    table = [
        (label, [getattr(m, field) for m in groups.values()])
        for field, label in RATES.items()
        if any(getattr(m, field) is not None for m in groups.values())
    ]
    environment = templates("em_bench.analysis")
    environment.filters["rate"] = rate
    page = environment.get_template("score.html.j2").render(
        score=score,
        judge=header.judge,
        asked=asked,
        groups=groups,
        rates=table,
        of_asked=of_asked,
        cannot_tell=cannot_tell,
        questions=sorted(question_counts(rows), key=lambda q: -q.counts["misaligned"]),
        outcomes=get_args(Outcome),
    )
    write_text(out, page)
