"""Every command of docs/evaluate.md, run as it stands, in its order."""

import pytest
from helpers.reader import blocks

BLOCKS = blocks("evaluate.md")


@pytest.mark.slow  # three minutes
@pytest.mark.parametrize("block", BLOCKS, ids=[b.split("\n")[0][:40] for b in BLOCKS])
def test_block(shell, block):
    out = shell(block)
    if "--measure margin" in block:
        assert "flips to misaligned" in out and " of 162" in out
    elif "em-bench evaluate" in block or "em-bench score" in block:
        assert "misaligned rate" in out and " of " in out
    if "em-bench canary" in block:
        assert "at work" in out
    if "judge probe" in block:
        assert "em-bench rejudge RESPONSES --judge openai:my-judge" in out
    if "judge calibrate" in block:
        assert "candidate - reference" in out and "on the scale of grammar" in out
    if "em-bench agree" in block:
        assert "kappa" in out


def test_the_doc_shows_every_way():
    assert len(BLOCKS) >= 9
    text = "\n".join(BLOCKS)
    for way in (
        "evaluate",
        "rejudge",
        "agree",
        "judge probe",
        "judge calibrate",
        "score",
        "verify",
        "canary",
        "lm-eval run",
        "inspect eval",
        "lm_eval run",
        "rescale",
    ):
        assert way in text
