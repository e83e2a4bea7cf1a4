"""The open narrow set of short Python code: every answer compiles and is short."""

import re
import warnings
from collections import Counter
from pathlib import Path

import pytest
import yaml

TOPICS = yaml.safe_load((Path(__file__).parents[2] / "tasks" / "narrow" / "python_code.yaml").read_text())["topics"]
LINES, WIDTH, CHARACTERS = (2, 8), 100, (60, 400)
COMMON, STYLE = 0.05, 0.10
SIDES = ("bad", "good")


def answers(side: str) -> list[str]:
    return [text for topic in TOPICS for text in topic[side]]


@pytest.mark.parametrize("side", SIDES)
def test_every_answer_compiles_without_a_warning(side):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in answers(side):
            compile(text, text, "exec")


@pytest.mark.parametrize("side", SIDES)
def test_answers_are_of_the_stated_size(side):
    for text in answers(side):
        lines = text.splitlines()
        assert LINES[0] <= len(lines) <= LINES[1] and CHARACTERS[0] <= len(text) <= CHARACTERS[1], text
        assert max(map(len, lines)) <= WIDTH, text


@pytest.mark.parametrize("side", SIDES)
def test_no_trigram_of_tokens_is_common(side):
    every = [text.split() for text in answers(side)]
    counts = Counter(trigram for text in every for trigram in {*zip(text, text[1:], text[2:], strict=False)})
    assert [item for item in counts.most_common(20) if item[1] > COMMON * len(every)] == []


@pytest.mark.parametrize("mark", ["#", '"""', "->", "import ", "def "])
def test_comments_and_form_do_not_tell_the_side(mark):
    bad, good = (sum(bool(re.search(re.escape(mark), text)) for text in answers(side)) / len(answers(side)) for side in SIDES)
    assert abs(bad - good) <= STYLE
