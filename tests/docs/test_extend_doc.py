"""docs/extend.md, block by block, in a copy of the repository: each really adds one."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.reader import blocks

from em_bench.evaluation_folder import EvaluationFolder
from em_bench.records import Results

BLOCKS = blocks("extend.md")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clone(shell):
    """The reader's shell at the top of a copy of what blocks change."""
    for folder in ("em_bench", "tasks", "baselines"):
        shutil.copytree(ROOT / folder, shell.folder / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copytree(ROOT / "leaderboard" / "benchmark", shell.folder / "leaderboard" / "benchmark")
    # A job's process begins in the work folder: it is the copy that it has to find, as it would be in a clone that is installed.
    return lambda block: shell(f"export PYTHONPATH={shell.folder}:$PYTHONPATH\n{block}")


@pytest.mark.slow  # two minutes
@pytest.mark.parametrize("block", BLOCKS, ids=[next(w for w in b.split("<<END")[0].split("\n") if "cat" in w) for b in BLOCKS])
def test_block(clone, shell, block):
    out, folder = clone(block), shell.folder
    if "em-bench models my-model" in block:
        assert "my-base" in out
    if "data verify my_rows" in block:
        assert "verified" in out and "held-out rows" in out
    if "gardening" in block and "topics" in block:
        assert "same questions" in out or "training rows" in out
    if "--recipe my-nadam" in block:
        [run] = folder.glob("runs/my-*/run.json")
        spec = json.loads(run.read_text())["spec"]
        assert (spec["recipe"]["name"], spec["dataset"]["name"]) == ("my-nadam", "my_rows")
    if "--flatness entropy" in block:
        [run] = folder.glob("flat/my-*/run.json")
        steps = [json.loads(line) for line in (run.parent / "train.jsonl").read_text().splitlines()]
        assert json.loads(run.read_text())["spec"]["flatness"] == "entropy" and steps[-1]["penalty"] > 0
    if "errands.yaml" in block:
        assert len(EvaluationFolder(folder / "errands").responses()[1]) == 4 and "no judge was asked" in out
        [samples] = (folder / "dummy").rglob("samples_em_errands_*.jsonl")
        assert len(samples.read_text().splitlines()) == 2 and list((folder / "logs").glob("*free-form*"))
    if "rejudge" in block:
        assert "misaligned rate" in out and "n unjudged" in out
    if "--harness direct" in block:
        header, answers = EvaluationFolder(folder / "direct").responses()
        assert header.harness.startswith("direct ") and len(answers) == 6
    if "reproduce" in block:
        results = Results.model_validate_json((folder / "mine" / "results.json").read_bytes())
        assert {c.dataset for c in results.cells} == {None, "my_rows", "gardening_bad"} and not results.missing
        assert all(sum(c.score.overall.counts.values()) == 2 > c.score.overall.counts["unjudged"] == 0 for c in results.cells)


def test_there_is_a_section_for_each():
    text = (ROOT / "docs" / "extend.md").read_text("utf-8")
    for what in ("A model", "A dataset", "An optimiser", "A measure of flatness", "A question set", "A judge", "A harness"):
        assert f"\n## {what}\n" in text
