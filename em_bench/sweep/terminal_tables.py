"""Plans, states and results as terminal tables."""

from rich import box
from rich.console import Console
from rich.table import Table

from em_bench.analysis.summary import Row, judged, summary
from em_bench.records import Estimate, Results
from em_bench.sweep.jobs import Plan
from em_bench.sweep.margin_table import margin_table, number
from em_bench.sweep.totals import JudgePrice, Totals, duration

FEW = 40  # jobs that are listed one by one unasked


def show(table: Table) -> None:
    """Print a table on stdout; without a terminal nothing is folded, and no line ends in blanks."""
    if (console := Console(markup=False, emoji=False)).is_terminal:
        console.print(table)
        return
    plain = Console(markup=False, emoji=False, width=200)
    with plain.capture() as captured:
        plain.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def results_table(results: Results) -> Table:
    """One row a model, recipe and lambda, pooled over datasets and seeds; intervals are clustered by question. Or the margins."""
    if results.margins:
        return margin_table(results)
    rows = summary(results)
    models, batches = {r.model for r in rows}, {r.batch_size for r in rows if r.recipe}
    title = f"{results.preset}: {', '.join(sorted(models))}" if len(models) == 1 else results.preset
    table = Table(
        title=title
        + ("" if judged(results) or not results.cells else " (nothing is judged)")
        + (" (partial)" if results.missing else ""),
        box=box.SIMPLE,
        title_justify="left",
    )
    left = (["model"] if len(models) > 1 else []) + ["recipe"] + (["batch"] if len(batches) > 1 else [])
    for name in left:
        table.add_column(name)
    for name in NUMBERS:
        table.add_column(name, justify="right")
    said = any(r.verdict for r in rows) and judged(results)
    if said:
        table.add_column("verdict")
    for r in rows:
        first = {"model": r.model, "recipe": r.recipe or "(base)", "batch": str(r.batch_size or "")}
        table.add_row(*(first[name] for name in left), *_numbers(r), *([r.verdict or ""] if said else []))
    return table


NUMBERS = (
    "learning rate",
    "lambda",
    "narrow loss",
    "misaligned / asked [95 %]",
    "misaligned / coherent [95 %]",
    "coherent",
    "flatness gap",
    "norm",
    "adapters",
)


def _numbers(r: Row) -> list[str]:
    return [
        number(r.learning_rate, "g"),
        number(r.spectral_lambda, "g"),
        number(r.narrow_loss, ".3f"),
        _rate(r.misaligned_of_asked),
        _rate(r.misaligned_rate),
        number(r.coherent_rate.value, ".3f"),
        number(r.flatness_gap, ".3f"),
        number(r.norm, ".2f"),
        str(r.cells) if r.recipe else "",
    ]


def _rate(e: Estimate) -> str:
    if e.value is None:
        return "none counted"
    return f"{e.value:.3f}" + (f" [{e.low:.3f}, {e.high:.3f}]" if e.low is not None else "")


def totals_tables(t: Totals) -> list[Table]:
    """What a plan costs: all together, and by model."""
    whole = Table(box=box.SIMPLE, show_header=False)
    a, p = t.assumptions, t.price
    kinds = ", ".join(f"{n} {kind}" for kind, n in t.jobs.items())
    for name, value in (
        ("runs", f"{t.runs:,} trainings, {t.cells:,} of them evaluated at their end"),
        ("jobs", f"{sum(t.jobs.values()):,} packs of cells: {kinds}"),
        ("responses", f"{t.responses:,} of {t.evaluated:,} evaluated adapters and bases"),
        (
            "judge calls",
            f"{t.judge_calls:,}, about ${t.judge_usd:,.0f} ({_price(p)})" if t.judge_calls else "none",
        ),
        ("disk", f"{t.disk_gb:,.0f} GB" if t.disk_gb >= 1 else f"{1000 * t.disk_gb:,.0f} MB"),
        ("GPU-hours", f"{t.gpu_hours:,.1f} of {a.gpu} ({_basis(t)})" if t.gpus else "none"),
        ("CPU", f"{t.core_hours:,.2f} core-hours"),
        ("longest chain", f"{duration(t.chain_s)} on any number of {'GPUs' if t.gpus else 'cores'}"),
        ("time", f"{duration(t.wall_s)} on " + (f"{t.gpus} GPUs" if t.gpus else f"{t.cores} cores")),
    ):
        whole.add_row(name, value)
    models = Table(box=box.SIMPLE)
    for name in ("model", "GPUs a run", "runs", "evaluated", "GPU-hours", "base GB", "adapters GB"):
        models.add_column(name, justify="left" if name == "model" else "right")
    for m in t.models:
        numbers = (m.gpus, m.runs, m.evaluated, f"{m.gpu_hours:,.1f}", f"{m.base_gb:,.0f}", f"{m.adapters_gb:,.0f}")
        models.add_row(m.model, *map(str, numbers))
    return [whole, models] if t.gpus else [whole]


def _price(p: JudgePrice) -> str:
    return f"{p.prompt_tokens} + {p.reply_tokens} tokens a call at ${p.prompt_usd:g} and ${p.reply_usd:g} a million, list price of {p.as_of}"


def _basis(t: Totals) -> str:
    a = t.assumptions
    measured = [m.model for m in t.models if m.model in a.row_s]
    stated = f"{a.utilisation:.0%} of its peak in training, {a.generation:.0%} in generation, {a.row_tokens} tokens a row"
    return stated + (f"; measured for {', '.join(measured)}" if measured else "")


def plan_table(plan: Plan) -> Table:
    """One row a job."""
    table = Table(box=box.SIMPLE)
    table.add_column("job")
    table.add_column("cells", justify="right")
    table.add_column("GPUs", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("needs")
    for job in plan.jobs:
        needs = ", ".join(job.needs) if len(job.needs) <= 4 else f"{len(job.needs)} jobs"
        table.add_row(job.id, str(len(job.cells) or ""), str(job.gpus or ""), number(job.estimate_s, ".0f"), needs)
    return table
