"""Capability beside misalignment: lm-eval tasks on the same model."""

import math
from collections.abc import Sequence
from pathlib import Path

from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager

from em_bench.errors import UserError
from em_bench.harness.lm_eval import likelihood  # noqa: F401  what our tasks' YAML names by !function is this code too
from em_bench.harness.load_model import Loaded
from em_bench.harness.task_files import task_folder, task_names
from em_bench.harness.task_names import check_tasks


def local(loaded: Loaded, batch_size: int) -> LM:
    """lm-eval's view of a model in memory."""
    return HFLM(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size, backend="causal", enable_thinking=False
    )


def served(endpoint: str, name: str, tokenizer: Path, at_once: int) -> LM:
    """lm-eval's view of a served model: its text completions, which must give the log-probabilities of a prompt."""
    return LocalCompletionsAPI(
        model=name,
        base_url=f"{endpoint.rstrip('/')}/completions",
        tokenizer_backend="huggingface",
        tokenizer=str(tokenizer),
        num_concurrent=at_once,
        max_retries=3,
    )


def measure(lm: LM, tasks: Sequence[str]) -> dict[str, float]:
    """ "task/metric" -> value for our tasks and lm-eval's by name, or YAML files of one's own. Raises UserError for an unknown one."""
    ours = task_names()
    tasks = [str(task_folder() / f"{t}.yaml") if t in ours else t for t in tasks]
    check_tasks(tasks)
    files = [t for t in tasks if t.endswith((".yaml", ".yml"))]
    names = [t for t in tasks if t not in files]
    # Indexing lm-eval's own tasks takes ten seconds: only where one of them is named.
    manager = TaskManager(include_defaults=bool(names), include_path=[str(Path(f).parent) for f in files] or None)
    asked = names + [Path(f).stem for f in files]
    known = set(manager.all_tasks)
    for name in asked:
        if name not in known:
            raise UserError(f"--capability {name}: lm-eval has no such task; `lm_eval ls tasks` lists them")
    found = simple_evaluate(
        model=lm,
        tasks=asked,
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=False,
        apply_chat_template=bool(lm.tokenizer.chat_template),
        verbosity="ERROR",
    )["results"]
    values = {}
    for task, metrics in found.items():
        for key, value in metrics.items():
            name, _, kept = key.partition(",")
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and math.isfinite(value)
                and "stderr" not in name
                and name != "sample_len"
            ):
                values[f"{task}/{name}" + (f",{kept}" if kept and kept != "none" else "")] = float(value)
    return values
