"""Plans and states as terminal tables."""

from rich import box
from rich.console import Console
from rich.table import Table

from em_bench.judging.providers import JudgePrice
from em_bench.sweep.jobs import Plan
from em_bench.sweep.totals import Totals, duration

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


def number(value: float | None, form: str) -> str:
    """Empty where there is none."""
    return "" if value is None else format(value, form)


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
    parts = Table(box=box.SIMPLE)
    for name in ("where the hours go", "GPU-hours", "core-hours"):
        parts.add_column(name, justify="right" if "-" in name else "left")
    for part, of in t.hours.items():
        parts.add_row(part, f"{of.gpu:,.1f}", f"{of.core:,.1f}")
    return [whole, parts, models] if t.gpus else [whole]


def transfer_text(plan: Plan) -> str:
    """What larger bases take over, and what that assumes; empty where nothing is."""
    transfer = plan.preset.transfer
    if transfer is None:
        return ""
    takers: dict[str, list[str]] = {}
    for model in plan.preset.models:
        if donor := transfer.donor(model, plan.models):
            takers.setdefault(donor, []).append(model)
    told = "; ".join(f"{', '.join(models)} take over what {donor} chose" for donor, models in takers.items())
    return (
        f"Learning rates and lambdas: {told}. That assumes that they hardly depend on the size of a base, which is not measured."
    )


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
