"""Answers through Inspect's Python API."""

import tempfile
from collections.abc import Sequence

from inspect_ai import Epochs, Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.solver import generate

from em_bench.errors import UserError
from em_bench.harness.inspect.providers import embench  # noqa: F401  (registers embench/local)
from em_bench.harness.inspect.tasks import sample
from em_bench.harness.kept import Kept
from em_bench.harness.load_model import Loaded
from em_bench.records import Generation, Question, Response
from em_bench.thinking import split_thinking


def answer(
    loaded: Loaded, question_set: str, questions: Sequence[Question], generation: Generation, batch_size: int, kept: Kept
) -> list[Response]:
    """All samples of the questions, which are of a set, answered by a loaded model through Inspect; what is in `kept` is not asked again.

    Raises UserError where one answer alone does not fit into memory, and RuntimeError if it fails otherwise.
    """
    g = generation
    task = Task(
        dataset=MemoryDataset([sample(q) for q in questions], name=question_set),
        solver=generate(),
        epochs=Epochs(g.samples, []),
        config=GenerateConfig(temperature=g.temperature, top_p=g.top_p, top_k=g.top_k, max_tokens=g.max_new_tokens, seed=g.seed),
    )
    config = GenerateConfig(max_connections=batch_size)
    model = get_model("embench/local", config=config, memoize=False, loaded=loaded, batch_size=batch_size, kept=kept)
    with tempfile.TemporaryDirectory() as logs:
        # The answers go to responses.jsonl; Inspect's own log of them, which its samples are read from, is not kept.
        [log] = inspect_eval(task, model=model, log_dir=logs, display="none", max_samples=batch_size)
        if log.status != "success":
            if isinstance(failed := getattr(model.api, "error", None), UserError):
                raise failed
            raise RuntimeError(f"Inspect: {log.error.message if log.error else log.status}")
        samples = list(log.samples or ())
    by_id = {q.id: q for q in questions}
    order: dict[int | str, int] = {q.id: i for i, q in enumerate(questions)}
    rows = []
    for s in sorted(samples, key=lambda s: (order[s.id], s.epoch)):
        q = by_id[str(s.id)]
        text, thinking = split_thinking(s.output.completion)
        rows.append(
            Response(
                question_id=q.id,
                cluster=q.cluster,
                variant=q.variant,
                sample=s.epoch - 1,
                system=q.system,
                question=q.text,
                answer=text.strip(),
                thinking=thinking,
            )
        )
    return rows
