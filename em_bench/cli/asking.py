"""`em-bench evaluate`: where the model is asked, whether its base is asked too, and what that costs."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

if TYPE_CHECKING:
    from em_bench.harness.evaluate import EvaluatedModel, Evaluation
    from em_bench.judging import Judge
    from em_bench.records import ScoreRecord


class Served(NamedTuple):
    """Where a served model is."""

    url: str
    name: str
    base: str | None


def check_served(context: typer.Context, at_server: Served | None) -> None:
    """Raises UserError for options of a server that do not go together."""
    from em_bench.errors import UserError

    given = [p for p in ("server", "served", "served_base") if context.params[p]]
    if given and not at_server:
        raise UserError("--server URL and --served NAME go together, --served-base NAME with them")
    if at_server and context.params["engine"] != "transformers":
        raise UserError("--server: runs an engine of its own; leave --engine away")


class Ask(NamedTuple):
    """What is asked and judged, and by what."""

    evaluation: "Evaluation"
    judge: "Judge"
    server: Served | None
    engine: str
    engine_python: Path | None


def ask(of: "EvaluatedModel", how: Ask, out: Path) -> "ScoreRecord":
    """Ask, judge and score: in this process, at a server, or by vLLM."""
    if how.server:
        from em_bench.harness.served.answers import Asked, Server
        from em_bench.harness.served.run import evaluate_served
        from em_bench.judging.options import Patience

        at_once = how.evaluation.batch_size
        server = Server(how.server.url, how.server.base, patience=Patience(timeout_s=600, concurrency=at_once))
        return evaluate_served(Asked(of, how.server.name, out), how.evaluation, how.judge, server)
    if how.engine == "vllm":
        from em_bench.harness.served.run import evaluate_with_vllm

        return evaluate_with_vllm(of, how.evaluation, how.judge, out, how.engine_python, how.evaluation.batch_size)
    from em_bench.harness.evaluate import evaluate as here

    return here(of, how.evaluation, how.judge, out)


def base_too(of: "EvaluatedModel", wanted: bool | None, judge: str, elsewhere: bool) -> bool:
    """Whether an adapter's base is asked as well: where it is wished, or costs no call."""
    from em_bench.errors import UserError

    if wanted and (elsewhere or of.adapter is None):
        raise UserError(
            "--base: is of an adapter whose base is asked in this process, and of the table; evaluate the base by itself"
        )
    free = judge.partition(":")[0] in ("grammar", "local", "python")
    return of.adapter is not None and not elsewhere and (free if wanted is None else wanted)


def leaking(dataset: str, judge: str) -> str | None:
    """What a judge that reads is asked of leakage by itself: the words of the training set's name; None where it is a file."""
    reads = judge.partition(":")[0] in ("openai", "local")
    return dataset.replace("_", " ") if reads and "/" not in dataset and "." not in dataset else None


def say_cost(base: str, evaluation: "Evaluation", count: int, judge: str, asked: int, models: int) -> None:
    """What is about to be done, and what it takes, on stderr; `asked`: questions to the judge an answer."""
    import sys

    from em_bench.judging.providers import JudgePrice, judging_cost
    from em_bench.sweep.job_time import answering_s
    from em_bench.sweep.totals import duration

    g = evaluation.generation
    answers = count * g.samples * models
    seconds = answering_s(base, answers, g.max_new_tokens) if base else None
    time = f", about {duration(seconds)} on this CPU" if seconds is not None else ""
    judged = f"; judging: {judging_cost(answers, asked, JudgePrice())}" if judge.startswith("openai:") else ""
    both = ", of the adapter and of its base" if models == 2 else ""
    print(f"{count} questions x {g.samples} answers{both}: {answers:,} answers{time}{judged}", file=sys.stderr)
