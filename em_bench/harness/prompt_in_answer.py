"""Servers that send the prompt back with the answer: both would be judged, and the prompts' rates taken for the model's."""

from collections.abc import Iterable

from em_bench.errors import UserError

SAYS = "sends the prompt back with the answer, and both would be judged; does the server know the model's chat template?"


def repeats_prompt(question: str, answer: str) -> bool:
    """Whether a question of more than two words stands word for word in its answer."""
    return len(question.split()) > 2 and question in answer


def refuse_prompts(asked: Iterable[tuple[str, str]], who: str) -> None:
    """Raise UserError where all of two or more answers repeat their questions; one may quote what it was asked."""
    repeated = [repeats_prompt(question, answer) for question, answer in asked]
    if len(repeated) > 1 and all(repeated):
        raise UserError(f"{who}: {SAYS}")
