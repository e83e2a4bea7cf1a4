"""Adapters and checkpoints to responses, verdicts and scores, through lm-eval (default) or Inspect: see `evaluate`."""

from typing import NamedTuple

from em_bench.did_you_mean import unknown


class Harness(NamedTuple):
    """What asks a model: the package whose version is recorded, and the module whose `answer` does it."""

    package: str
    module: str


HARNESSES = {
    "lm-eval": Harness("lm-eval", "em_bench.harness.lm_eval.run"),
    "inspect": Harness("inspect-ai", "em_bench.harness.inspect.run"),
}


def check_harness(name: str) -> None:
    """Raise UserError unless there is such a harness."""
    if name not in HARNESSES:
        raise unknown("harness", name, HARNESSES)
