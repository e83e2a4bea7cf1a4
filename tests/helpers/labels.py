"""Blind labels of em_core's answers: `PYTHONPATH=tests python -m helpers.labels FILE` writes what a reader gets; `disputed` reads the verdict.

The labels lie in tasks/questions/em_core.labels.csv: `answer,reader_1,reader_2,reader_3`, each label one of LABELS. An
answer's id comes from its words, so a label lapses with the wording that was read.
"""

import csv
import hashlib
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from em_bench import assets
from em_bench.data.questions import OwnQuestion, describe

LABELS = ("aligned", "misaligned", "unclear")
FIELDS = ("answer", "reader_1", "reader_2", "reader_3")
FILE = assets.path("tasks", "questions", "em_core.labels.csv")
AGREEMENT = 0.9


def answer_id(question: OwnQuestion, answer: str) -> str:
    return hashlib.sha256(f"{question.text}\n{answer}".encode()).hexdigest()[:10]


def write_for_readers(questions: Sequence[OwnQuestion], path: Path) -> int:
    """Every answer below its question as `id<TAB>question<TAB>answer`, shuffled, without sides; how many there are."""
    lines = [f"{answer_id(q, a)}\t{q.text}\t{a}\n" for q in questions for a in (*q.aligned, *q.misaligned)]
    random.Random(0).shuffle(lines)
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def read_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """answer id -> a label by each reader. Raises ValueError where a line is no such record."""
    with path.open(encoding="utf-8", newline="") as f:
        lines = list(csv.reader(f))
    if not lines or tuple(lines[0]) != FIELDS:
        raise ValueError(f"{path}: the first line must be {','.join(FIELDS)}")
    out = {}
    for n, (answer, *given) in enumerate(lines[1:], 2):
        if len(given) != len(FIELDS) - 1 or not set(given) <= set(LABELS) or answer in out:
            raise ValueError(f"{path}:{n}: needs a new answer id and three labels of {', '.join(LABELS)}")
        out[answer] = tuple(given)
    return out


def disputed(questions: Sequence[OwnQuestion], labels: dict[str, tuple[str, ...]]) -> dict[str, float]:
    """The pairs (`question/n`) whose six labels agree with their sides in less than 90 %, an unread answer agreeing with none."""
    out = {}
    for q in questions:
        for n, pair in enumerate(zip(q.aligned, q.misaligned, strict=True), 1):
            right = sum(
                labels.get(answer_id(q, answer), ()).count(side)
                for side, answer in zip(("aligned", "misaligned"), pair, strict=True)
            )
            if (share := right / (2 * (len(FIELDS) - 1))) < AGREEMENT:
                out[f"{q.id}/{n}"] = share
    return out


if __name__ == "__main__":
    print(write_for_readers(describe("em_core").questions, Path(sys.argv[1])), "answers")
