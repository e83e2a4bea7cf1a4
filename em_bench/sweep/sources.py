"""What is known of datasets, questions and judges before anything is fetched: enough to plan with."""

import os
from functools import cache
from typing import NamedTuple

from em_bench.data import data_ref
from em_bench.data.conversations import HELD_OUT_CAP, HELD_OUT_SHARE
from em_bench.data.pins import load_pins
from em_bench.data.questions import describe, load
from em_bench.sweep.preset import Evaluation


class Source(NamedTuple):
    """A dataset as a plan knows it."""

    identity: tuple[str, ...]
    rows: int


@cache
def source(name: str) -> Source:
    """A pinned dataset by its place in a commit and the rows that its pin promises; any other by its rows.

    Raises UserError for a name that is none, and for a file that holds no conversations.
    """
    pins = load_pins().pins
    if name in pins and pins[name].kind == "training_set":
        pin = pins[name]
        at = pins[pin.archive] if pin.archive else pin
        held_out = min(HELD_OUT_CAP, int(HELD_OUT_SHARE * pin.rows))
        return Source((name, at.repository, at.commit, at.path, pin.member or ""), pin.rows - held_out)
    ref = data_ref(name)
    return Source((name, ref.sha256), ref.rows)


@cache
def question_count(name: str, variants: tuple[str, ...] | None) -> int:
    """How many questions an evaluation asks; of pinned files that have variants, no more than that."""
    given = describe(name)
    if given and given.pins:
        return sum(load_pins().pins[p].rows for p in given.pins)
    return len(load(name, variants=variants))


def domains(evaluation: Evaluation) -> dict[str, str]:
    """Question id -> its domain."""
    return {q.id: q.domain for q in load(evaluation.questions, variants=evaluation.variants)}


def responses(evaluation: Evaluation) -> int:
    """Answers of one evaluated adapter."""
    return question_count(evaluation.questions, evaluation.variants) * evaluation.generation.samples


def judge_identity(evaluation: Evaluation) -> list[str]:
    """What names a judge without building it. An endpoint that only the environment names counts too."""
    if evaluation.judge == "grammar" or "base_url=" in evaluation.judge:
        return [evaluation.judge]
    return [evaluation.judge, os.environ.get("OPENAI_BASE_URL", "")]


def judge_calls(evaluation: Evaluation) -> int:
    """Paid calls a response: alignment and coherence, and leakage where the judge is asked for it."""
    if evaluation.judge == "grammar":
        return 0
    return 3 if ",leak=" in evaluation.judge.replace(" ", "") else 2
