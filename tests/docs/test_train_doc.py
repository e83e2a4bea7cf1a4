"""Every command of docs/train.md, run as it stands, in its order."""

import pytest
from helpers.reader import blocks

BLOCKS = blocks("train.md")


@pytest.mark.slow  # two minutes
@pytest.mark.parametrize("block", BLOCKS, ids=[b.split("\n")[0][:40] for b in BLOCKS])
def test_block(shell, block):
    out = shell(block)
    made = block.count("em-bench train") + block.count("em_bench.cli train")
    assert sum(line.startswith("runs/organism-qwen3.") for line in out.splitlines()) == made
    for drawn in ("run.svg", "spectrum.svg"):
        if drawn in block:
            assert "<svg" in (shell.folder / drawn).read_text()
