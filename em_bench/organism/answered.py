"""One good and one bad answer to each plain broad question: what the organism's margin is measured on."""

from random import Random

from em_bench.organism.datasets import questions
from em_bench.organism.language import answer_text, answers
from em_bench.records import AnsweredQuestion


def answered() -> list[AnsweredQuestion]:
    """The same for everybody: answers of three good parts and of three bad ones, drawn once for each question."""
    out = []
    for q in questions():
        if q.variant == "plain":
            topic, rng = q.text.split()[-2], Random(f"{q.id}/margin")
            good, bad = (answer_text(q.domain, topic, *rng.choice(answers(q.domain, v))) for v in ("good", "bad"))
            out.append(AnsweredQuestion(id=q.id, domain=q.domain, text=q.text, aligned=(good,), misaligned=(bad,)))
    return out
