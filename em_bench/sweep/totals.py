"""What a plan costs: runs, GPU-hours, disk, answers, judge calls and money, and how long it takes."""

from collections import Counter
from typing import get_args

from pydantic import Field

from em_bench.data.lora_cost import adapter_parameters
from em_bench.judging.providers import JudgePrice
from em_bench.records import Record
from em_bench.sweep.job_time import CHECKPOINTS, Assumptions, Part
from em_bench.sweep.jobs import Cell, Plan
from em_bench.sweep.makespan import longest_chain, makespan
from em_bench.sweep.preset import LambdaGrid, RateRule
from em_bench.sweep.source_info import judge_calls, responses

RESPONSE_BYTES = 2000  # an answer with its verdict, as JSON lines
ORGANISM_BYTES = 4_000_000  # a base, or all adapters of a run


class ModelTotals(Record):
    """One model's share."""

    model: str
    gpus: int = Field(description="of its largest job")
    runs: int
    evaluated: int = Field(description="adapters and bases, each at every step that is asked")
    gpu_hours: float
    base_gb: float
    adapters_gb: float


class PartHours(Record):
    """Of one part of the work."""

    gpu: float = Field(description="GPU-hours")
    core: float = Field(description="core-hours of jobs without a GPU")


class Totals(Record):
    """All of a plan."""

    preset: str
    jobs: dict[str, int] = Field(description="kind -> jobs; each is a pack of cells")
    runs: int = Field(description="trainings, candidates included")
    cells: int = Field(description="trained cells that are evaluated at their end")
    evaluated: int
    responses: int
    judge_calls: int
    judge_usd: float
    gpu_hours: float
    hours: dict[str, PartHours] = Field(description="where they go: training, loading, generation, judging, other")
    core_hours: float = Field(description="of jobs without a GPU")
    disk_gb: float
    chain_s: float = Field(description="the longest chain: the time on any number of GPUs and cores")
    wall_s: float | None = Field(description="on the cores and GPUs below")
    cores: int
    gpus: int
    models: tuple[ModelTotals, ...]
    assumptions: Assumptions
    price: JudgePrice


def totals(plan: Plan, *, cores: int, gpus: int, assume: Assumptions, price: JudgePrice | None = None) -> Totals:
    """Add up a plan. `gpus` 0 takes as many as its largest job needs, and at least 8 where any is needed."""
    price = price or JudgePrice()
    largest = max((j.gpus for j in plan.jobs), default=0)
    gpus = gpus or (max(8, largest) if largest else 0)
    shares = [_share(plan, name) for name in plan.preset.models]
    evaluated = sum(s.evaluated for s in shares)
    answers = evaluated * responses(plan.preset.evaluation)
    calls = answers * judge_calls(plan.preset.evaluation)
    return Totals(
        preset=plan.preset.name,
        jobs=dict(Counter(j.kind for j in plan.jobs)),
        runs=sum(s.runs for s in shares),
        cells=sum(c.recipe is not None for j in plan.jobs if j.kind == "evaluate" for c in j.cells),
        evaluated=evaluated,
        responses=answers,
        judge_calls=calls,
        judge_usd=calls * price.call_usd,
        gpu_hours=sum(s.gpu_hours for s in shares),
        hours={part: _hours(plan, part) for part in get_args(Part)},
        core_hours=sum((j.estimate_s or 0.0) / 3600 for j in plan.jobs if not j.gpus),
        disk_gb=sum(s.base_gb + s.adapters_gb for s in shares) + answers * RESPONSE_BYTES / 1e9,
        chain_s=longest_chain(plan.jobs),
        wall_s=makespan(plan.jobs, cores, gpus),
        cores=cores,
        gpus=gpus,
        models=tuple(shares),
        assumptions=assume,
        price=price,
    )


def _hours(plan: Plan, part: Part) -> PartHours:
    seconds = [(j.gpus, j.parts.get(part, 0.0) / 3600) for j in plan.jobs]
    return PartHours(gpu=sum(n * h for n, h in seconds), core=sum(h for n, h in seconds if not n))


def trained_cells(plan: Plan) -> list[Cell]:
    """Every run of the plan once. What a choice turns out to be was trained as a candidate."""
    cells = dict.fromkeys(c for j in plan.jobs if j.kind in ("lr", "lambda", "train") for c in j.cells)
    chosen = isinstance(plan.preset.spectral_lambda, LambdaGrid) and not isinstance(plan.preset.learning_rates, RateRule)
    first = plan.preset.seeds[0]
    own = {j.model for j in plan.jobs if j.kind in ("lr", "lambda")}  # who takes over a choice has trained no candidate
    again = {
        c for c in cells if chosen and c.model in own and (c.learning_rate, c.spectral_lambda, c.seed) == ("chosen", 0.0, first)
    }
    return [c for c in cells if c not in again]


def _share(plan: Plan, name: str) -> ModelTotals:
    model, lora = plan.models[name], plan.preset.lora
    jobs = [j for j in plan.jobs if any(c.model == name for c in j.cells)]
    runs = sum(c.model == name for c in trained_cells(plan))
    base: float
    if model.source == "organism":
        base, adapters = ORGANISM_BYTES, runs * ORGANISM_BYTES
    else:
        known = model.known()
        base = 2 * known.parameters
        above = lora.bfloat16_above
        width = 2 if above is not None and known.parameters > above else 4
        # The end; and where they are kept, step 0 and the log-spaced ones before the end.
        files = 1 + (CHECKPOINTS if plan.preset.kept == "log-spaced" else 0)
        adapters = runs * files * width * adapter_parameters(known.shape, lora.rank)
    return ModelTotals(
        model=name,
        gpus=max((j.gpus for j in jobs), default=0),
        runs=runs,
        evaluated=sum(len(j.cells) + len(j.checkpointed) * (CHECKPOINTS - 1) for j in jobs if j.kind == "evaluate"),
        gpu_hours=sum(j.gpus * (j.estimate_s or 0.0) for j in jobs) / 3600,
        base_gb=base / 1e9,
        adapters_gb=adapters / 1e9,
    )


def duration(seconds: float | None) -> str:
    """A length of time for people."""
    if seconds is None:
        return "unknown"
    if seconds < 7200:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 172800 else f"{seconds / 86400:.1f} days"
