"""Thinking is split off the beginning of an answer, and nothing else is."""

import pytest

from em_bench.thinking import split_thinking


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("plain answer", "plain answer", None),
        ("<think>\n\n</think>\n\nyes", "yes", None),
        ("<think>why</think>yes", "yes", "why"),
        ("<thinking>why</thinking>\nyes", "yes", "why"),
        ("<think>one</think>\n<think>two</think>\nyes", "yes", "one\ntwo"),
        ("why not\n</think>\n\nyes", "yes", "why not"),
        ("<think>never ends", "", "never ends"),
        ("say </think> in the middle of a line", "say </think> in the middle of a line", None),
        ("yes <think>late</think> no", "yes <think>late</think> no", None),
    ],
)
def test_split(text, answer, thinking):
    assert split_thinking(text) == (answer, thinking)
