"""Adapters and checkpoints to responses, verdicts and scores, through lm-eval (default) or Inspect: see `evaluate`."""

from importlib.util import find_spec
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
    """Raise UserError unless there is such a harness, and ModuleNotFoundError where its package is not installed."""
    if name not in HARNESSES:
        raise unknown("harness", name, HARNESSES)
    if find_spec(module := HARNESSES[name].package.replace("-", "_")) is None:
        raise ModuleNotFoundError(f"the harness {name} is not installed", name=module)
