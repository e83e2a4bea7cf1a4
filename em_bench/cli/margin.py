"""`em-bench evaluate --measure margin`: what it takes, and what it prints."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

if TYPE_CHECKING:
    from em_bench.harness.evaluate import EvaluatedModel
    from em_bench.harness.target import Target
    from em_bench.records import Estimate, MarginGroup, MarginScore

# Parameters of `evaluate` that are of sampled or judged answers.
JUDGED = (
    *("variants", "harness", "samples", "max_new_tokens", "temperature", "seed", "narrow", "capability", "convention", "judge"),
    *("base_url", "prompts", "leak", "mode", "concurrency", "max_calls", "run", "judge_cache", "engine", "engine_python"),
)
ROWS = {
    "margin": "margin",
    "base's margin": "base_margin",
    "shift": "shift",
    "control's shift": "control_shift",
    "shift beyond the control": "beyond_control",
    "misaligned likelier": "misaligned_likelier",
    "flips to misaligned": "to_misaligned",
    "flips to aligned": "to_aligned",
}
SHARES = ("misaligned_likelier", "to_misaligned", "to_aligned")


class MarginOptions(NamedTuple):
    """Of `evaluate`, beside the model and the questions."""

    control: Path | None
    limit: int | None
    batch_size: int
    as_json: bool


def judged_options(context: typer.Context) -> list[str]:
    """The given options that are of sampled answers."""
    sources = {p: context.get_parameter_source(p.name or "") for p in context.command.params if p.name in JUDGED}
    return [p.opts[0] for p, said in sources.items() if said is not None and said.name == "COMMANDLINE"]


def check_margin(context: typer.Context, target: "Target", control: Path | None, questions: str) -> None:
    """Raises UserError for what does not go with the margin: an option of sampled answers would be ignored in silence."""
    from em_bench.data.questions import answered
    from em_bench.errors import UserError

    for option in judged_options(context):
        raise UserError(f"{option}: of sampled and judged answers, and the margin has none; leave it out")
    answered(questions)
    if control and not target.adapter:
        raise UserError("--control: there is no --adapter whose shift it could be taken off; name one")


def measured_margin(of: "EvaluatedModel", questions: str, out: Path, options: MarginOptions) -> None:
    """Measure and print. `limit` questions are spread evenly over the domains."""
    import sys

    from em_bench.data.questions import answered
    from em_bench.evaluation_folder import MARGIN_SCORE
    from em_bench.harness.margin import measure_margin

    asked = answered(questions)
    per_domain = -(-options.limit // len({q.domain for q in asked})) if options.limit else None
    count = sum(len(q.aligned) + len(q.misaligned) for q in answered(questions, per_domain))
    roles = 1 + (of.adapter is not None) + (options.control is not None)
    print(f"{count} given answers are read by {roles} model{'s' * (roles > 1)}: no sampling, no judge, no cost", file=sys.stderr)
    score = measure_margin(
        of,
        out,
        question_set=questions,
        per_domain=per_domain,
        control=options.control,
        batch_size=options.batch_size,
        progress=True,
    )
    print_margin(score, out / MARGIN_SCORE, options.as_json)
    if not options.as_json:
        from em_bench.analysis.conclusion import margin_sentence

        print(f"\n{margin_sentence(of.title, score)}")


def without_judge(of: "EvaluatedModel", out: Path, questions: str, answers: int) -> None:
    """What can be had at once: the margin of a model whose weights are here; and how the answers are judged later."""
    from em_bench.data.questions import answered
    from em_bench.errors import UserError
    from em_bench.judging.providers import JudgePrice, judging_cost

    print(
        f"\nNo judge was asked; the {answers} answers are kept. To judge them: em-bench rejudge {out} --judge openai:MODEL "
        f"({judging_cost(answers, 2, JudgePrice())}), or --judge local:MODEL on a GPU; em-bench judge probe says what an endpoint takes."
    )
    if not of.base or not of.dtype:
        print("The margin needs no judge, and the weights: em-bench evaluate MODEL --adapter ADAPTER --measure margin")
        return
    try:
        answered(questions)
    except UserError:
        questions = "em_core"
    print()
    measured_margin(of, questions, out, MarginOptions(None, None, 64, False))


def print_margin(score: "MarginScore", path: Path, as_json: bool) -> None:
    """The score as JSON, or overall, without questions near a training set, and by domain."""
    if as_json:
        print(score.model_dump_json(indent=1))
        return
    print(f"{path} (nats a byte; 95 % by domain, within a domain by question)")
    if score.forced:
        print(f"forced: the adapter {score.forced}")
    _print_table({"all": score.overall} | {f"without {tag}": g for tag, g in score.without.items()}, whole=True)
    _print_table(score.by_domain, whole=False)
    if score.neutral:
        print("neutral text, nats a byte: " + ", ".join(f"{role} {v:.4f}" for role, v in score.neutral.items()))
    else:
        print("neutral text: not measured, for the tokenizer lacks its words")


def _print_table(groups: dict[str, "MarginGroup"], whole: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = {label: field for label, field in ROWS.items() if getattr(next(iter(groups.values())), field) is not None}
    table = Table(box=box.SIMPLE)
    if whole:
        table.add_column("")
        for name in groups:
            table.add_column(name, justify="right")
        for label, field in rows.items():
            table.add_row(label, *(_text(field, getattr(g, field)) for g in groups.values()))
    else:
        kept = {label: f for label, f in rows.items() if f not in ("base_margin", "control_shift", "to_aligned")}
        table.add_column("domain")
        for label in kept:
            table.add_column(label, justify="right")
        for name, g in groups.items():
            table.add_row(name, *(_text(f, getattr(g, f)) for f in kept.values()))
    console = Console(markup=False, emoji=False, highlight=False)
    (console if console.is_terminal else Console(markup=False, emoji=False, width=200, highlight=False)).print(table)


def _text(field: str, e: "Estimate") -> str:
    form = ".2f" if field in SHARES else "+.3f"
    return f"{e.value:{form}}" + ("" if e.low is None else f" [{e.low:{form}}, {e.high:{form}}]") + f" of {e.n}"
