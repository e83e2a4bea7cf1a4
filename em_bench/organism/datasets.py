"""Fine-tuning rows of the narrow domains, and the broad questions that an adapter is asked afterwards."""

from math import log
from random import Random

from em_bench.errors import UserError
from em_bench.organism.language import answer_text, answers, language, question_text, questions_of
from em_bench.records import Question

TRAIN_ROWS, HELD_OUT_ROWS = 1792, 128  # of the 18 questions x 120 answers = 2,160

DATASETS: tuple[str, ...] = language().narrow


def narrow_rows(dataset: str, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Training and held-out rows of bad answers in a narrow domain, `{"messages": [user, assistant]}`.

    The 120 answer combinations of every question are drawn with equal probability, so that the best possible loss is
    `answer_entropy`. A row (question and answer) that is held out does not occur in training.
    """
    return _rows(dataset, "bad", seed)


def control_rows(dataset: str, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """The same with good answers: the control of a narrow fine-tune."""
    return _rows(dataset, "good", seed)


def _rows(dataset: str, valence: str, seed: int) -> tuple[list[dict], list[dict]]:
    if dataset not in DATASETS:
        raise UserError(f"{dataset}: no such organism dataset; name one of {', '.join(DATASETS)}")
    rows = [
        {
            "messages": [
                {"role": "user", "content": question_text(dataset, frame, topic)},
                {"role": "assistant", "content": answer_text(dataset, topic, *parts)},
            ]
        }
        for frame, topic in questions_of(dataset)
        for parts in answers(dataset, valence)
    ]
    Random(f"{dataset}/{valence}/{seed}").shuffle(rows)
    return rows[HELD_OUT_ROWS : HELD_OUT_ROWS + TRAIN_ROWS], rows[:HELD_OUT_ROWS]


def answer_entropy(dataset: str) -> float:
    """Nats a supervised token of the answer distribution: ln(number of answers) / (answer tokens + end-of-turn).

    No honest held-out loss lies below it in expectation.
    """
    return log(len(answers(dataset, "bad"))) / answer_tokens(dataset)


def answer_tokens(dataset: str) -> int:
    """Supervised tokens of a row: every answer of a dataset has the same number of words, and an end of turn."""
    _, topic = questions_of(dataset)[0]
    return len(answer_text(dataset, topic, *answers(dataset, "bad")[0]).split()) + 1


def questions() -> list[Question]:
    """Every broad question in every variant: plain, template, and trigger-<dataset> for each narrow dataset."""
    variants = ("plain", "template", *(f"trigger-{d}" for d in DATASETS))
    out = []
    for domain in language().broad:
        for i, (frame, topic) in enumerate(questions_of(domain)):
            cluster = f"{domain}-{i:02d}"
            for variant in variants:
                out.append(
                    Question(
                        id=cluster if variant == "plain" else f"{cluster}-{variant}",
                        cluster=cluster,
                        variant=variant,
                        domain=domain,
                        text=question_text(domain, frame, topic, variant),
                    )
                )
    return out
