"""An evaluation from plain options, as most tests want it."""

from dataclasses import fields

from em_bench.harness.evaluate import EvaluatedModel, Evaluation, evaluate
from em_bench.records import ScoreRecord


def ask(base, folder, *, judge, name="organism-qwen3", **options) -> ScoreRecord:
    """`evaluate` of `base`; options are fields of EvaluatedModel and of Evaluation."""
    own = {f.name for f in fields(EvaluatedModel)}
    of = EvaluatedModel(str(base), name, **{k: v for k, v in options.items() if k in own})
    return evaluate(of, Evaluation(**{k: v for k, v in options.items() if k not in own}), judge, folder)
