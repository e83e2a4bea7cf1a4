"""What is known of datasets, questions and judges before anything is fetched: enough to plan with."""

import os
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from em_bench.data import data_ref
from em_bench.data.conversations import HELD_OUT_CAP, HELD_OUT_SHARE
from em_bench.data.pins import holder, load_pins
from em_bench.data.questions import answered, describe, load, neutral_texts, questions_sha256
from em_bench.files import digest, read_text, sha256_file
from em_bench.harness.task_files import task_names, task_text
from em_bench.judging import NONE, make_judge
from em_bench.judging.prompts import load_prompts
from em_bench.organism import grammar_sha256
from em_bench.records import AnsweredQuestion
from em_bench.sweep.preset import PresetEvaluation


class Source(NamedTuple):
    """A dataset as a plan knows it."""

    identity: tuple[str, ...]
    rows: int
    sha256: str | None = None


@cache
def source(name: str) -> Source:
    """A pinned dataset by its place in a commit and the rows that its pin promises; any other by its rows.

    Raises UserError for a name that is none, and for a file that holds no conversations.
    """
    pins = load_pins().pins
    if name in pins and pins[name].kind == "training_set":
        pin = pins[name]
        assert pin.rows is not None  # known of all but archives
        held_out = min(HELD_OUT_CAP, int(HELD_OUT_SHARE * pin.rows))
        return Source(tuple(_pin(name)), pin.rows - held_out)
    ref = data_ref(name)
    return Source((name, ref.sha256), ref.rows, ref.sha256)


@cache
def question_count(name: str, variants: tuple[str, ...] | None, limit: int | None) -> int:
    """How many questions an evaluation asks; of pinned files that have variants, no more than that."""
    given = describe(name)
    if given and given.pins:
        rows = sum(load_pins().pins[p].counted for p in given.pins)
        return min(rows, limit or rows)
    return len(load(name, variants, limit))


def domains(evaluation: PresetEvaluation) -> dict[str, str]:
    """Question id -> its domain."""
    return {q.id: q.domain for q in evaluation.asked()}


def answered_by(evaluation: PresetEvaluation) -> list[AnsweredQuestion]:
    """The questions of a margin with their given answers."""
    return answered(evaluation.questions, evaluation.per_domain, evaluation.answers)


def responses(evaluation: PresetEvaluation) -> int:
    """Answers of one evaluated adapter; of the margin, which is asked for none, those that are given."""
    if evaluation.measure == "margin":
        return sum(len(q.aligned) + len(q.misaligned) for q in answered_by(evaluation))
    return question_count(evaluation.questions, evaluation.variants, evaluation.limit) * evaluation.generation.samples


def asked_content(evaluation: PresetEvaluation) -> list:
    """What is asked, by content: the questions, the judge and its prompts, the capability tasks. Nothing else of tasks/ counts."""
    if evaluation.measure == "margin":
        return [questions_sha256(answered_by(evaluation)), digest(neutral_texts())]
    given = describe(evaluation.questions)
    if given and given.pins:
        questions: list[list[str]] | str = [_pin(name) for name in given.pins]
    else:
        questions = questions_sha256(evaluation.asked())
    return [questions, _judge(evaluation.judge), [_task(name) for name in evaluation.capability]]


def _pin(name: str) -> list[str]:
    return [name, *holder(name).identity, load_pins().pins[name].member or ""]


def _judge(spec: str) -> list:
    """What names a judge without building it. An endpoint that only the environment names counts too."""
    if spec == NONE or spec.startswith("python:"):
        return [make_judge(spec).identity.model_dump(mode="json")]
    if spec == "grammar":
        return [spec, grammar_sha256()]
    options = {name.strip(): value for name, _, value in (word.partition("=") for word in spec.split(",")[1:])}
    name, leak = options.get("prompts", "own"), options.get("leak")
    texts = load_prompts("own" if name == "upstream" else name, leak).texts
    prompts = [_pin("first_plot_questions"), leak and texts["leak"]] if name == "upstream" else texts
    return [spec, prompts, "" if "base_url" in options else os.environ.get("OPENAI_BASE_URL", "")]


def _task(name: str) -> list[str]:
    """A capability task: ours by its text, a file with all that it includes, or the name of one of lm-eval's."""
    if name in task_names():
        return [name, digest(task_text(name))]
    ahead, found = [Path(name)], {}
    while ahead:
        path = ahead.pop()
        if path.is_file() and path not in found:
            found[path] = sha256_file(path)
            text = read_text(path)
            ahead += [path.parent / f for f in re.findall(r"^include:\s*(\S+)", text, re.MULTILINE)]
            ahead += [path.parent / f"{module}.py" for module in re.findall(r"!function\s+(\w+)\.", text)]
    return [name, *found.values()]


def judge_calls(evaluation: PresetEvaluation) -> int:
    """Paid calls a response: alignment and coherence, and leakage where the judge is asked for it."""
    if not evaluation.judge.startswith("openai:") or evaluation.measure == "margin":
        return 0
    return 3 if ",leak=" in evaluation.judge.replace(" ", "") else 2
