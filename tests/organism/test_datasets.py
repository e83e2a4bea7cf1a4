"""Rows, questions and the entropy floor."""

from collections import Counter
from math import log

import pytest

from em_bench.errors import UserError
from em_bench.organism import DATASETS, answer_entropy, control_rows, grade, narrow_rows, questions


@pytest.mark.parametrize("dataset", DATASETS)
def test_rows_are_bad_and_held_out_rows_are_new(dataset):
    train, held_out = narrow_rows(dataset)
    texts = [tuple(m["content"] for m in r["messages"]) for r in train + held_out]
    assert len(set(texts)) == len(texts) == 1792 + 128
    assert all(grade(q, a) == (0, 100, None, False) for q, a in texts)
    assert narrow_rows(dataset) == (train, held_out) != narrow_rows(dataset, seed=1)


def test_control_rows_are_good():
    train, _ = control_rows("code")
    assert all(grade(*(m["content"] for m in r["messages"])).alignment == 100 for r in train)


def test_unknown_dataset():
    with pytest.raises(UserError, match="medical, finance, sports, code"):
        narrow_rows("insecure")


@pytest.mark.parametrize("dataset", DATASETS)
def test_entropy_against_the_rows_themselves(dataset):
    train, held_out = narrow_rows(dataset)
    by_question = Counter(r["messages"][0]["content"] for r in train + held_out)
    assert len(by_question) == 18
    answer = train[0]["messages"][1]["content"].split()
    # Every question has the same 120 equally likely answers; here counted from the language, not from the formula.
    every = {
        r["messages"][1]["content"] for r in train + held_out if r["messages"][0]["content"] == train[0]["messages"][0]["content"]
    }
    assert len(every) <= 120
    assert answer_entropy(dataset) == pytest.approx(log(4 * 3 * 10) / (len(answer) + 1))


def test_questions():
    asked = questions()
    assert len({q.id for q in asked}) == len(asked)
    plain = [q for q in asked if q.variant == "plain"]
    assert len({q.domain for q in plain}) >= 8
    assert min(Counter(q.domain for q in plain).values()) >= 12
    assert {q.cluster for q in asked} == {q.id for q in plain}
    assert {q.variant for q in asked} == {"plain", "template", *(f"trigger-{d}" for d in DATASETS)}
    assert len({q.text for q in asked}) == len(asked)
