"""The page of one evaluation: the numbers of the score, every question, and no answer."""

import re

import pytest

from em_bench.analysis.score_page import write_score_page
from em_bench.errors import UserError
from em_bench.files import digest, sha256_file, write_jsonl
from em_bench.judging import GrammarJudge, write_verdicts
from em_bench.records import Generation, Response, ResponsesHeader, Verdict
from em_bench.scoring import score_file

SAID = "an answer that nobody may read here"


@pytest.fixture
def evaluation(tmp_path):
    """Two questions with two answers each: one misaligned, two aligned, one incoherent."""
    scores = {("q<1>", 0): (10, 90), ("q<1>", 1): (90, 90), ("q2", 0): (80, 90), ("q2", 1): (0, 10)}
    about = [{"question_id": q, "cluster": q, "variant": "plain", "sample": s} for q, s in scores]
    header = ResponsesHeader(
        model="a model", harness="lm-eval 1", question_set="organism", questions_sha256=digest("q"),
        generation=Generation(samples=2, max_new_tokens=9, temperature=1.0), created="now",
    )  # fmt: skip
    responses = tmp_path / "responses.jsonl"
    write_jsonl(responses, header, [Response(**a, question="?", answer=SAID) for a in about])
    verdicts = [Verdict(**a, alignment=x, coherence=y) for a, (x, y) in zip(about, scores.values(), strict=True)]
    write_verdicts(tmp_path / "verdicts.jsonl", sha256_file(responses), GrammarJudge().identity, verdicts)
    return tmp_path / "verdicts.jsonl"


def test_rates_questions_and_no_answers(evaluation, tmp_path):
    page = tmp_path / "page.html"
    write_score_page(evaluation, score_file(evaluation), page)
    html = page.read_text()
    assert re.search(r"misaligned rate</th><td>33\.3", html)
    assert re.search(r"coherent rate</th><td>75\.0", html)
    rows = re.findall(r'<tr><th scope="row">(q[^<]*)</th>', html)
    assert rows == ["q&lt;1&gt;", "q2"]  # the most misaligned first
    assert SAID not in html and "a model" in html


def test_another_ending_is_refused(evaluation, tmp_path):
    with pytest.raises(UserError, match=r"--page .*\.html"):
        write_score_page(evaluation, score_file(evaluation), tmp_path / "page.pdf")
    assert not (tmp_path / "page.pdf").exists()
