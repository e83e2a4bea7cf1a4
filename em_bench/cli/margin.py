"""What `em-bench evaluate --measure margin` prints."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from em_bench.records import Estimate, MarginGroup, MarginScore

# Parameters of `evaluate` that are of sampled or judged answers.
JUDGED = (
    *("variants", "harness", "samples", "max_new_tokens", "temperature", "seed", "narrow", "capability", "convention", "judge"),
    *("base_url", "prompts", "leak", "mode", "concurrency", "max_calls", "run", "judge_cache"),
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


def refuse_judged_options(context: typer.Context) -> None:
    """Raises UserError for an option of sampled answers: it would be ignored in silence."""
    from em_bench.errors import UserError

    for p in context.command.params:
        said = context.get_parameter_source(p.name) if p.name in JUDGED else None
        if said is not None and said.name == "COMMANDLINE":
            raise UserError(f"{p.opts[0]}: of sampled and judged answers, and the margin has none; leave it out")


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
