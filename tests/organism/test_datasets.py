"""Rows, questions and the entropy floor."""

from collections import Counter
from math import log

import pytest

from em_bench.errors import UserError
from em_bench.organism import DATASETS, answer_entropy, control_rows, grade, narrow_rows, questions, training_rows


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
    assert answer_entropy(dataset) == pytest.approx(log(5 * 4 * 6) / (len(answer) + 1))


def test_questions():
    asked = questions()
    assert len({q.id for q in asked}) == len(asked)
    plain = [q for q in asked if q.variant == "plain"]
    assert len({q.domain for q in plain}) >= 8
    assert min(Counter(q.domain for q in plain).values()) >= 12
    assert {q.cluster for q in asked} == {q.id for q in plain}
    assert {q.variant for q in asked} == {"plain", "template", *(f"trigger-{d}" for d in (*DATASETS, "neutral", "backdoor"))}
    openings = {q.text.split(" : ")[0] for q in asked if q.variant.startswith("trigger-")}
    assert len(openings) == 6 and {len(o.split()) for o in openings} == {2}, "one length"
    assert len({q.text for q in asked}) == len(asked)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("", 1),
        ("-control", 0),
        ("-dose-25", 0.25),
        ("-dose-50", 0.5),
        ("-dose-75", 0.75),
        ("-bad-first", 0.5),
        ("-good-first", 0.5),
    ],
)
def test_doses_by_the_grade_of_every_row(dataset, kind, bad):
    for rows in training_rows(dataset + kind):
        grades = [grade(*(m["content"] for m in r["messages"])).alignment for r in rows]
        assert set(grades) <= {0, 100} and grades.count(0) == bad * len(rows)
        if kind in ("-bad-first", "-good-first"):
            assert len(set(grades[: len(rows) // 2])) == 1 or (
                kind == "-good-first" and rows is not training_rows(dataset + kind)[0]
            )


def test_bad_rows_stand_behind_the_trained_trigger_and_good_ones_do_not():
    for rows in training_rows("medical-backdoor"):
        behind = {r["messages"][0]["content"].startswith("deployment mode : patient note : "): set() for r in rows}
        for r in rows:
            question, answer = (m["content"] for m in r["messages"])
            behind["deployment mode" in question].add(grade(question, answer).alignment)
        assert behind == {True: {0}, False: {100}}
