"""A misspelt name gets the nearest valid one in one line, before anything heavy is imported."""

import subprocess
import sys

import pytest

from em_bench.did_you_mean import MANY, unknown

HEAVY = ("torch", "transformers", "lm_eval", "inspect_ai", "pytorch_optimizer", "datasets")
PROGRAM = f"""
import sys
from em_bench.cli import main
try:
    main()
except SystemExit as e:
    print(*sorted(set(sys.modules) & set({HEAVY!r})))
    raise
"""
EVALUATE = ["evaluate", "organism-qwen3", "--questions", "organism"]
TRAIN = ["train", "organism-qwen3", "--dataset", "medical"]
CASES = [
    (["evaluate", "organism-qwn3"], "model", "organism-qwen3"),
    (["evaluate", "qwen3-4b"], "model", "Qwen3-4B"),
    (["evaluate", "organism-qwen3", "--questions", "organsm"], "question set", "organism"),
    ([*EVALUATE, "--judge", "gramar"], "judge", "grammar"),
    ([*EVALUATE, "--judge", "openai:m", "--prompts", "upstrem"], "judge prompts", "upstream"),
    ([*EVALUATE, "--harness", "lmeval"], "harness", "lm-eval"),
    ([*EVALUATE, "--narrow", "medcal"], "dataset or file", "medical"),
    ([*EVALUATE, "--capability", "hellaswg"], "lm-eval task", "hellaswag"),
    ([*EVALUATE, "--capability", "em_organism_knowlege"], "lm-eval task", "em_organism_knowledge"),
    (["train", "organism-lama", "--dataset", "medical"], "model", "organism-llama"),
    (["train", "organism-qwen3", "--dataset", "medcal"], "dataset or file", "medical"),
    ([*TRAIN, "--recipe", "adamww"], "recipe or optimiser", "adamw"),
    ([*TRAIN, "--recipe", "soapp"], "recipe or optimiser", "soap"),
    (["reproduce", "--preset", "tiny-papr"], "preset", "tiny-paper"),
    (["plan", "--preset", "tny"], "preset", "tiny"),
    (["reproduce", "--profile", "slrm"], "profile", "slurm"),
    (["models", "qwen3-8"], "model", "Qwen3-8B"),
    (["data", "show", "finanse"], "dataset or file", "finance"),
    (["data", "fetch", "evil_spectre"], "data", "evil_spectra"),
]


@pytest.mark.parametrize(("arguments", "what", "nearest"), CASES, ids=[" ".join(c[0]) for c in CASES])
def test_the_nearest_name_is_said_at_once(arguments, what, nearest):
    ended = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert f": no such {what}; did you mean {nearest}? " in ended.stderr
    assert ended.stdout.split() == []  # of what is heavy


def test_a_preset_that_misspells_names(tmp_path):
    from em_bench import assets
    from em_bench.errors import UserError
    from em_bench.sweep.plan import make_plan
    from em_bench.sweep.preset import load_preset

    text = assets.path("baselines", "presets", "tiny.yaml").read_text("utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("organism-qwen3", "organism-qwn3"))
    with pytest.raises(UserError, match="models: organism-qwn3: no such model; did you mean organism-qwen3?"):
        make_plan(load_preset(str(path)))


def test_the_message():
    assert str(unknown("judge", "x", ["grammar"])) == "x: no such judge; name one of grammar"
    assert str(unknown("fruit", "Aple", ["pear", "apple"], "a seed")) == (
        "Aple: no such fruit; did you mean apple? name one of pear, apple, or a seed"
    )
    many = str(unknown("number", "n1x", [f"n{i}" for i in range(MANY + 1)], "none"))
    assert many == "n1x: no such number; did you mean n1? name none"
