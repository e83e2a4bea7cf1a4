"""The page of one evaluation: its finding, the numbers of the score, every question, and the worst answers where they may be shown."""

import re

import pytest

from em_bench.analysis.score_page import write_score_page
from em_bench.errors import UserError
from em_bench.files import digest, sha256_file, write_jsonl
from em_bench.judging import GrammarJudge, write_verdicts
from em_bench.records import Generation, Response, ResponsesHeader, Verdict
from em_bench.scoring import score_file

SAID = "an <answer> & its words"


@pytest.fixture
def evaluation(tmp_path, request):
    """Two questions with two answers each: one misaligned, two aligned, one incoherent."""
    scores = {("q<1>", 0): (10, 90), ("q<1>", 1): (90, 90), ("q2", 0): (80, 90), ("q2", 1): (0, 10)}
    about = [{"question_id": q, "cluster": q, "variant": "plain", "sample": s} for q, s in scores]
    header = ResponsesHeader(
        model="a model", harness="lm-eval 1", question_set=getattr(request, "param", "organism"), questions_sha256=digest("q"),
        generation=Generation(samples=2, max_new_tokens=9, temperature=1.0), created="now",
    )  # fmt: skip
    responses = tmp_path / "responses.jsonl"
    write_jsonl(
        responses, header, [Response(**a, question=f"asked {a['question_id']}", answer=f"{SAID} {a['sample']}") for a in about]
    )
    verdicts = [Verdict(**a, alignment=x, coherence=y) for a, (x, y) in zip(about, scores.values(), strict=True)]
    write_verdicts(tmp_path / "verdicts.jsonl", sha256_file(responses), GrammarJudge().identity, verdicts)
    return tmp_path / "verdicts.jsonl"


@pytest.mark.parametrize(
    ("evaluation", "shown"), [("organism", True), ("evil_spectra", False), ("nobody_knows", False)], indirect=["evaluation"]
)
def test_rates_questions_and_the_worst_answers_of_a_set_that_may_be_republished(evaluation, shown, tmp_path):
    page = tmp_path / "page.html"
    write_score_page(evaluation, score_file(evaluation), page)
    html = page.read_text()
    assert re.search(r"misaligned rate</th><td[^>]*>33\.3", html)
    assert re.search(r"coherent rate</th><td[^>]*>75\.0", html)
    rows = re.findall(r'<tr><th scope="row" data-head="question">(q[^<]*)</th>', html)
    assert rows == ["q&lt;1&gt;", "q2"]  # the most misaligned first
    finding = re.search(r'<p class="finding">(.*?)</p>', html)[1]
    assert finding.startswith("a model: 25.0%") and "of 4 answers" in finding and "broken" in finding  # 3 of 4 are coherent
    assert ("an &lt;answer&gt; &amp; its words 0" in html) == ("asked q&lt;1&gt;" in html) == shown
    assert html.count('<article class="worst">') == shown and "its words 1" not in html  # one answer is misaligned
    assert ("may not be republished" in html) is not shown
    assert "<script" not in html and not re.findall(r"""src=["']""", html)


def test_another_ending_is_refused(evaluation, tmp_path):
    with pytest.raises(UserError, match=r"--page .*\.html"):
        write_score_page(evaluation, score_file(evaluation), tmp_path / "page.pdf")
    assert not (tmp_path / "page.pdf").exists()
