"""A run's identity: the hash of everything that determines it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from em_bench.code_digest import code_digest
from em_bench.files import digest
from em_bench.protocol import sides
from em_bench.records import BaseRef, DataRef, RecipeRef, RunSpec
from em_bench.training.schedule import warmup

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")  # in a folder's name
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def training_code() -> str:
    """The digest of the code that determines a run, as it was when this process loaded it."""
    return code_digest("em_bench.training.run")


def run_spec(base: BaseRef, dataset: DataRef, recipe: RecipeRef, **settings: Any) -> RunSpec:
    """A complete spec: `settings` are further fields of RunSpec, what is left out is the protocol's (docs/protocol.md, 2)."""
    if settings.get("warmup_steps") is None:
        settings["warmup_steps"] = warmup(settings["steps"])
    return RunSpec(base=base, dataset=dataset, recipe=recipe, code=training_code(), **settings)


def run_id(spec: RunSpec) -> str:
    """Readable and unique: base.dataset.recipe.s<seed>.<12 hex digits of the spec's digest>."""
    data = Path(spec.dataset.name).name.removesuffix(".jsonl")  # a user's own rows are named by their path
    names = (_UNSAFE.sub("-", name).strip("-.")[:60] or "unnamed" for name in (spec.base.name, data, spec.recipe.name))
    return f"{'.'.join(names)}.s{spec.seed}.{digest(spec)[:12]}"


def log_spaced(steps: int, points: int = 8) -> list[int]:
    """About `points` log-spaced steps from 1 to `steps`, both included, after step 0."""
    spaced = {round(steps ** (i / max(points - 1, 1))) for i in range(points)} if steps > 1 else {1}
    return [0, *sorted(spaced | {steps})]


def measured_steps(spec: RunSpec) -> list[int]:
    """The steps at which the held-out loss is measured: log-spaced, and with targets 5 % of the run apart or less."""
    apart = max(1, spec.steps // 20)
    return sorted({*log_spaced(spec.steps), *(range(0, spec.steps, apart) if spec.targets else ())})


def kept_steps(spec: RunSpec, losses: Sequence[tuple[int, float]]) -> set[int]:
    """The measured steps, of `losses` (step, nats) in order so far, whose adapters are kept.

    They are the log-spaced ones, unless the spec keeps none, both sides of the first crossing of each target, and the last one, which may
    become a side; not the end, which is the adapter itself.
    """
    steps = [step for step, _ in losses]
    crossed = {step for target in spec.targets for step in sides(losses, target)}
    spaced = set(log_spaced(spec.steps)) & set(steps) if spec.kept == "log-spaced" else set()
    return {*spaced, *crossed, *(steps[-1:] if spec.targets else ())} - {spec.steps}
