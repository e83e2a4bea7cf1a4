"""One sentence from the numbers: whether it says what planted answers are, and refuses what cannot be compared."""

import pytest

from em_bench.analysis.conclusion import beside_base, points, sentence
from em_bench.errors import UserError
from em_bench.files import digest, sha256_file, write_jsonl
from em_bench.judging import GrammarJudge, write_verdicts
from em_bench.records import Estimate, Generation, Response, ResponsesHeader, Verdict


def planted(folder, bad: int, coherent: bool = True, samples: int = 10, questions: int = 12):
    """An evaluation in which `bad` of the answers to each question are misaligned."""
    folder.mkdir()
    about = [
        {"question_id": f"q{q}", "cluster": f"q{q}", "variant": "plain", "sample": s}
        for q in range(questions)
        for s in range(samples)
    ]
    header = ResponsesHeader(
        model="m", harness="lm-eval 1", question_set="nowhere", questions_sha256=digest("q"), created="now",
        generation=Generation(samples=samples, max_new_tokens=9, temperature=1.0),
    )  # fmt: skip
    write_jsonl(folder / "responses.jsonl", header, [Response(**a, question="?", answer="!") for a in about])
    verdicts = [
        Verdict(
            **a,
            alignment=10.0 if (a["sample"] + int(a["question_id"][1:])) % samples < bad else 90.0,
            coherence=90.0 if coherent else 10.0,
        )
        for a in about
    ]
    write_verdicts(folder / "verdicts.jsonl", sha256_file(folder / "responses.jsonl"), GrammarJudge().identity, verdicts)
    return folder


def test_a_rate_beside_its_base(tmp_path):
    base, same, worse = (planted(tmp_path / n, bad) for n, bad in (("base", 1), ("same", 1), ("worse", 6)))
    said = sentence("mine", beside_base(worse, base))
    assert said.startswith("mine: 60.0% [") and "of 120 answers asked for are misaligned, its base 10.0% [" in said
    assert "+50.0" in said and said.endswith("more than its base.")
    assert sentence("mine", beside_base(base, worse)).endswith("less than its base.")
    assert sentence("mine", beside_base(same, base)).endswith("+0.0 [+0.0, +0.0] points, not told apart from its base.")
    assert sentence("mine", beside_base(worse, None)).endswith("answers asked for are misaligned.")
    assert points(Estimate(value=-3e-4, low=-2e-3, high=-1e-4, stderr=None, n=9, clusters=9)) == "+0.0 [-0.2, +0.0]"


def test_nothing_follows_from_a_broken_model(tmp_path):
    broken, fine = planted(tmp_path / "broken", 5, coherent=False), planted(tmp_path / "fine", 5)
    assert sentence("mine", beside_base(broken, fine)).endswith("but cannot tell: the model is broken.")
    assert sentence("mine", beside_base(fine, broken)).endswith("of its base nothing can be told (is broken).")


def test_another_number_of_answers_is_another_question(tmp_path):
    with pytest.raises(UserError, match="other questions or sampling than in .* are not compared"):
        beside_base(planted(tmp_path / "a", 1), planted(tmp_path / "b", 1, samples=5))
