"""A plain install evaluates; whatever else it is asked for says in one line which extra it wants.

Nothing is installed: what belongs to extras alone, by the metadata of the distributions themselves, cannot be imported.
"""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from helpers.extras import EXTRAS, PROJECT, closure
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# Each argument list in a process where `blocked` is not there and em-bench's metadata is that of pyproject.toml.
PROGRAM = """
import importlib.metadata, json, sys
requires, blocked, calls = json.loads(sys.argv[1])

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
importlib.metadata.requires = lambda name: requires
from em_bench.cli import main
for call in calls:
    sys.argv = ["em-bench", *call]
    try:
        main()
    except SystemExit as e:
        print(f"exit {e.code or 0}", flush=True)
"""


@pytest.fixture(scope="module")
def blocked() -> list[str]:
    """Modules that only an extra brings."""
    core = closure(PROJECT["dependencies"])
    return sorted(
        m for m, by in packages_distributions().items() if not {canonicalize_name(d) for d in by} & (core | {"em-bench"})
    )


def metadata() -> list[str]:
    """`requires` of the distribution, as its build writes it from pyproject.toml."""
    return PROJECT["dependencies"] + [f"{r}; extra == '{e}'" for e, listed in EXTRAS.items() for r in listed]


def ends(folder: Path, blocked: list[str], *calls: list[str]) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-c", PROGRAM, json.dumps([metadata(), blocked, calls])]
    return subprocess.run(
        call,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )


def test_each_extra_brings_something_of_its_own(blocked):
    assert {"openai", "inspect_ai", "pytorch_optimizer", "statsmodels", "matplotlib", "snakemake"} <= set(blocked)
    assert not {"torch", "transformers", "lm_eval", "peft", "scipy"} & set(blocked)


WANTS = [
    (["evaluate", "organism-qwen3", "--judge", "openai:m", "--base-url", "http://127.0.0.1:9/v1"], "judge"),
    (["evaluate", "organism-qwen3", "--questions", "organism", "--harness", "inspect"], "inspect"),
    (["report", str(ROOT / "baselines" / "results" / "tiny" / "results.json.gz"), "--out", "r"], "board"),
    (["reproduce", "--preset", "tiny"], "reproduce"),
]


def wanted(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """The extra that each line of an error names."""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("em-bench: ")]
    return [re.search(r"pip install 'em-bench\[(\w+)\]'", line)[1] for line in lines]


def test_what_needs_more_says_so_in_one_line(tmp_path, blocked):
    ended = ends(tmp_path, blocked, *(call for call, _ in WANTS))
    assert re.findall(r"^exit (\d+)$", ended.stdout, re.MULTILINE) == ["2"] * len(WANTS), ended.stdout + ended.stderr
    assert wanted(ended) == [extra for _, extra in WANTS] and not list(tmp_path.iterdir())


@pytest.mark.slow  # it loads a model, twenty seconds
def test_a_plain_install_evaluates(base, tmp_path, blocked):
    ended = ends(
        tmp_path,
        blocked,
        ["evaluate", "organism-qwen3", "--questions", "organism", "--limit", "2", "-n", "1", "--out", "e"],
        *(["score", "e"], ["verify", "e"], ["models"], ["tasks"], ["data", "list"], ["runs", "."], ["submit", "init", "mine"]),
        ["train", "organism-qwen3", "--dataset", "medical", "--recipe", "soap", "--steps", "1"],
    )
    assert re.findall(r"^exit (\d+)$", ended.stdout, re.MULTILINE) == ["0"] * 8 + ["2"], ended.stdout + ended.stderr
    assert (tmp_path / "e" / "score.json").is_file() and wanted(ended) == ["train"]
