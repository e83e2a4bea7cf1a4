"""The YAML files by which lm-eval knows our tasks, without lm-eval: those of tasks/lm_eval/, and one made of each question and training set.

lm-eval has no entry point for tasks: it reads folders. So the files that differ in a name alone are made, into the cache.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from em_bench import assets
from em_bench.data import data_ref, dataset_names
from em_bench.data.questions import describe, longest_answer, question_sets
from em_bench.errors import UserError
from em_bench.files import cache_dir, digest, read_text, write_text

_TASK = re.compile(r"^(?:task|group|class) *:", re.MULTILINE)


def task_names() -> tuple[str, ...]:
    """Every task and group of ours. Reads no file."""
    own = sorted(p.stem for p in assets.path("tasks", "lm_eval").glob("[!_]*.yaml"))
    return (*own, *_sources())


def task_text(name: str) -> str:
    """The YAML of one of `task_names`. Raises UserError where its question set is invalid."""
    path = assets.path("tasks", "lm_eval", f"{name}.yaml")
    if path.is_file():
        return read_text(path)
    return _made(name, _sources()[name])


def task_folder(own: Sequence[str] = ()) -> Path:
    """The folder of all our tasks for lm-eval's --include_path, in the cache.

    own: YAML files of question sets and JSON lines files of rows; `PATH/x.yaml` is the task em_x, `PATH/x.jsonl` em_narrow_x.
    Raises UserError for a file that is neither, a name that is taken, and a cache that cannot be written.
    """
    texts = {name: task_text(name) for name in task_names()}
    for given in own:
        name = own_task(given)
        if name in texts:
            raise UserError(f"{given}: {name} is a task already; name the file otherwise")
        texts[name] = _made(name, str(Path(given).resolve()))
    folder = cache_dir() / "lm_eval_tasks" / digest(texts)[:16]
    try:
        for name, text in texts.items():
            if not (path := folder / f"{name}.yaml").is_file():
                write_text(path, text)
    except OSError as e:
        raise UserError(
            f"{folder}: the cache cannot be written ({e.strerror}); set EM_BENCH_CACHE to a folder that can"
        ) from None
    return folder


def own_task(given: str) -> str:
    """The task that a question set or a file of rows becomes."""
    return _task(Path(given).stem, given.endswith(".jsonl"))


def is_own(given: str) -> bool:
    """Whether it is a file of rows or a question set, and no task of lm-eval's."""
    path = Path(given)
    return path.is_file() and (
        path.suffix == ".jsonl" or (path.suffix in (".yaml", ".yml") and not _TASK.search(read_text(path)))
    )


def _task(source: str, narrow: bool) -> str:
    return f"em_narrow_{source}" if narrow else f"em_{source.removeprefix('em_')}"


def _sources() -> dict[str, str]:
    """Task -> the set that it is made of."""
    return {_task(s, False): s for s in question_sets()} | {_task(d, True): d for d in dataset_names()}


def _made(name: str, source: str) -> str:
    said: dict[str, str | int]
    if name.startswith("em_narrow_"):
        kind, said = "_narrow", {"dataset": data_ref(source).name if source.endswith(".jsonl") else source}
    else:
        known, kind = describe(source), "_free_form"
        said = {"questions": source, "version": known.version if known else 1, "longest": longest_answer(source)}
    template = Template(read_text(assets.path("tasks", "lm_eval", f"{kind}.yaml")))
    return template.substitute({"name": name} | {k: json.dumps(v) for k, v in said.items()})
