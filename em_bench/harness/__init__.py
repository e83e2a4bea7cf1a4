"""Adapters and checkpoints to responses, verdicts and scores, through lm-eval (default) or Inspect: see `evaluate`."""

from em_bench.did_you_mean import unknown

HARNESSES = {"lm-eval": "lm-eval", "inspect": "inspect-ai"}  # by the name of their package


def check_harness(name: str) -> None:
    """Raise UserError unless there is such a harness."""
    if name not in HARNESSES:
        raise unknown("harness", name, HARNESSES)
