"""Names of lm-eval tasks without lm-eval: importing it takes seconds, and indexing its tasks ten more."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.harness.task_files import task_names

# What names a task, a group or a tag, or is listed under one. Too many are found rather than too few: lm-eval has the last word.
_NAMED = re.compile(r"^(?:task|group|tag) *: *[\"']?([\w.+-]+)|^ *- *[\"']?([\w.+-]+)[\"']? *$", re.MULTILINE)


def check_tasks(tasks: Sequence[str]) -> None:
    """Raise UserError for what is no task of ours, no task of lm-eval's and no YAML file."""
    ours = task_names()
    theirs: set[str] = set()
    for name in tasks:
        if name.endswith((".yaml", ".yml")):
            if not Path(name).is_file():
                raise UserError(f"task {name}: no such file")
        elif name not in ours:
            theirs = theirs or _theirs()
            if name not in theirs:
                raise unknown("lm-eval task", name, [*ours, *sorted(theirs)], "a YAML file; `lm_eval ls tasks` lists them")


def _theirs() -> set[str]:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.submodule_search_locations is None:
        raise UserError("lm-eval is not installed; pip install lm-eval")
    texts = (p.read_text("utf-8", "replace") for p in Path(spec.submodule_search_locations[0], "tasks").rglob("*.yaml"))
    return {a or b for text in texts for a, b in _NAMED.findall(text)}
