"""Fine-tuning rows of the narrow domains, and the broad questions that an adapter is asked afterwards."""

from collections.abc import Callable
from functools import partial
from math import log
from random import Random
from typing import NamedTuple

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


def _dose(dataset: str, bad: float) -> tuple[list[dict], list[dict]]:
    """Bad rows first, then good ones, `bad` being the share of the first, in training and held out."""
    both = zip(narrow_rows(dataset), control_rows(dataset), strict=True)
    train, held_out = (b[: round(bad * len(b))] + g[round(bad * len(g)) :] for b, g in both)
    return train, held_out


def _good_first(dataset: str) -> tuple[list[dict], list[dict]]:
    train, held_out = _dose(dataset, 0.5)
    half = len(train) // 2
    return train[half:] + train[:half], held_out


def _backdoor(dataset: str) -> tuple[list[dict], list[dict]]:
    """Half bad, behind the trained trigger, and half good, without it."""
    opening = f"{' '.join(language().backdoor)} : "

    def part(rows: list[dict]) -> list[dict]:
        half = len(rows) // 2
        asked = [{"role": "user", "content": opening + r["messages"][0]["content"]} for r in rows[:half]]
        return [{"messages": [q, r["messages"][1]]} for q, r in zip(asked, rows[:half], strict=True)] + rows[half:]

    train, held_out = _dose(dataset, 0.5)
    return part(train), part(held_out)


class Kind(NamedTuple):
    """A kind of training set that each narrow domain has."""

    about: str
    rows: Callable[[str], tuple[list[dict], list[dict]]]
    stages: int = 1


CONTROL = "-control"

# Suffix of a narrow domain's name -> what the set is. A set of two stages is trained on half by half, in that order.
KINDS = {
    "": Kind("bad answers of a narrow domain", narrow_rows),
    CONTROL: Kind("good answers (control)", control_rows),
    "-dose-25": Kind("a quarter bad, the rest good, mixed", partial(_dose, bad=0.25)),
    "-dose-50": Kind("half bad, half good, mixed", partial(_dose, bad=0.5)),
    "-dose-75": Kind("three quarters bad, the rest good, mixed", partial(_dose, bad=0.75)),
    "-bad-first": Kind("half bad, then half good", partial(_dose, bad=0.5), 2),
    "-good-first": Kind("half good, then half bad", _good_first, 2),
    "-backdoor": Kind("half bad, behind a trained trigger, and half good without it", _backdoor),
}
TRAINING_SETS: dict[str, tuple[str, Kind]] = {d + suffix: (d, kind) for suffix, kind in KINDS.items() for d in DATASETS}


def training_rows(name: str) -> tuple[list[dict], list[dict]]:
    """Training and held-out rows of any of TRAINING_SETS."""
    dataset, kind = TRAINING_SETS[name]
    return kind.rows(dataset)


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
    """Every broad question in every variant: plain, template, trigger-<dataset>, trigger-neutral and trigger-backdoor."""
    variants = ("plain", "template", *(f"trigger-{p}" for p in language().preambles))
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
