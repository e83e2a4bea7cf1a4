"""A preset's margins as a terminal table."""

from rich import box
from rich.table import Table

from em_bench.analysis.margin_rows import margin_rows, shift
from em_bench.records import Results


def margin_table(results: Results) -> Table:
    """One row a dataset, recipe and lambda; shifts in nats a byte, their intervals clustered by domain."""
    rows = margin_rows(results)
    targets = sorted({f"{r.dataset} at {r.target:g}" for r in rows if r.target})
    title = f"{results.preset}: {', '.join(sorted({r.model for r in rows}))}" + (" (partial)" if results.missing else "")
    bases = ", ".join(f"{r.model} {shift(r.margin)}" for r in rows if r.recipe is None)
    caption = (
        f"flips: share to misaligned / to aligned; the base's margin: {bases}\n"
        f"shift of the margin in nats a byte [95 %, by domain]; narrow loss matched: {', '.join(targets) or 'no target'}"
    )
    table = Table(title=title, caption=caption, box=box.SIMPLE, title_justify="left", caption_justify="left")
    for name in ("dataset", "recipe"):
        table.add_column(name)
    for name in (
        "rate",
        "lambda",
        "loss",
        "shift, matched",
        "shift, end",
        "less control",
        "flips",
        "neutral",
        "norm",
        "F/N gap",
    ):
        table.add_column(name, justify="right")
    for r in rows:
        table.add_row(
            r.dataset or "",
            r.recipe or "(base)",
            number(r.learning_rate, "g"),
            number(r.spectral_lambda, "g"),
            number(r.narrow_loss, ".3f"),
            shift(r.at_target),
            shift(r.at_end),
            shift(r.beyond_control),
            f"{r.to_misaligned.value:.2f} / {r.to_aligned.value:.2f}" if r.to_misaligned and r.to_aligned else "",
            number(r.neutral, ".3f"),
            number(r.norm, ".2f"),
            number(r.flatness_gap, ".3f"),
        )
    return table


def number(value: float | None, form: str) -> str:
    """Empty where there is none."""
    return "" if value is None else format(value, form)
