"""The commands that must answer at once, under a second of CPU: what `benchmarks/light_commands.py` times and the tests hold."""

import subprocess
import sys
from pathlib import Path
from shutil import copytree

from em_bench import assets
from em_bench.files import write_record
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import load_preset

# No torch, no tables of a library: what they would import takes seconds.
HEAVY = (
    "torch", "transformers", "peft", "lm_eval", "inspect_ai", "pytorch_optimizer", "datasets", "pandas", "scipy", "matplotlib", "snakemake",
)  # fmt: skip
LIGHT = (
    ["--help"],
    ["--version"],
    ["runs", "runs"],
    ["status", "--workdir", "tiny"],
    ["plan"],
    ["models"],
    ["submit", "status"],
)
# Arguments, exit code 2: a command, an option, a path or a name of an entry that is not there.
ABSENT = (
    ["evaluat"],
    ["models", "--jsn"],
    ["runs", "nosuch"],
    ["status", "--workdir", "nosuch"],
    ["submit", "status", "nosuch"],
    ["submit", "check", "nosuch"],
    ["submit", "run", "nosuch"],
    ["spectrum", "nosuch"],
    ["verify", "nosuch"],
    ["report", "nosuch"],
    ["score", "nosuch"],
    ["rejudge", "nosuch"],
    ["agree", "nosuch", "nosuch"],
    ["import", "nosuch"],
)
# Arguments, what is misspelt, the nearest name.
EVALUATE = ["evaluate", "organism-qwen3", "--questions", "organism"]
EVALUATED = [*EVALUATE, "--variants", "plain", "--samples", "1"]  # run again, it has nothing to do
TRAIN = ["train", "organism-qwen3", "--dataset", "medical"]
MISSPELT = [
    (["evaluate", "organism-qwn3"], "model", "organism-qwen3"),
    (["evaluate", "qwen3-4b"], "model", "Qwen3-4B"),
    (["evaluate", "organism-qwen3", "--questions", "organsm"], "question set", "organism"),
    ([*EVALUATE, "--judge", "gramar"], "judge", "grammar"),
    ([*EVALUATE, "--judge", "openai:m", "--prompts", "upstrem"], "judge prompts", "upstream"),
    ([*EVALUATE, "--judge", "grammar", "--prompts", "own-9"], "judge prompts", "own-1"),
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


def work(folder: Path) -> None:
    """What LIGHT asks for, made in `folder`: a folder of runs with one in the making, a sweep's work folder with its plan, entries."""
    (folder / "runs" / ".made.partial").mkdir(parents=True)
    (folder / "tiny").mkdir()
    write_record(folder / "tiny" / "plan.json", make_plan(load_preset("tiny")))
    copytree(assets.path("leaderboard", "submissions"), folder / "leaderboard" / "submissions")


def at_once(arguments: list[str], folder: Path | None = None, but: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """One start of em-bench in a process of its own. Raises AssertionError where it imported anything HEAVY `but` this."""
    program = f"""
import sys
from em_bench.cli import main
try:
    main()
finally:
    assert not set(sys.modules) & set({tuple(h for h in HEAVY if h not in but)!r}), "HEAVY"
"""
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, cwd=folder)
    assert "HEAVY" not in ended.stderr, ended.stderr
    return ended
