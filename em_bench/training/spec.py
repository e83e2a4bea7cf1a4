"""A run's identity: the hash of everything that determines it."""

import re
from pathlib import Path

from em_bench.code_digest import code_digest
from em_bench.files import digest
from em_bench.protocol import GRADIENT_CLIP, MAX_LENGTH
from em_bench.records import BaseRef, DataRef, LoraSpec, RecipeRef, RunSpec
from em_bench.training.schedule import warmup

_UNSAFE = re.compile(r"[^\w.-]+")  # in a folder's name
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def training_code() -> str:
    """The digest of the code that determines a run, as it was when this process loaded it."""
    return code_digest("em_bench.training.run")


def run_spec(
    base: BaseRef,
    dataset: DataRef,
    recipe: RecipeRef,
    *,
    spectral_lambda: float = 0.0,
    lora: LoraSpec,
    batch_size: int,
    steps: int,
    seed: int = 0,
    warmup_steps: int | None = None,
    gradient_clip: float = GRADIENT_CLIP,
    max_length: int = MAX_LENGTH,
    dtype: str = "float32",
) -> RunSpec:
    """A complete spec from its parts and the protocol's defaults (docs/protocol.md, 2)."""
    return RunSpec(
        base=base,
        dataset=dataset,
        recipe=recipe,
        spectral_lambda=spectral_lambda,
        lora=lora,
        batch_size=batch_size,
        steps=steps,
        warmup_steps=warmup(steps) if warmup_steps is None else warmup_steps,
        gradient_clip=gradient_clip,
        max_length=max_length,
        dtype=dtype,
        seed=seed,
        code=training_code(),
    )


def run_id(spec: RunSpec) -> str:
    """Readable and unique: base.dataset.recipe.s<seed>.<12 hex digits of the spec's digest>."""
    data = Path(spec.dataset.name).name.removesuffix(".jsonl")  # a user's own rows are named by their path
    parts = (_UNSAFE.sub("-", part) for part in (spec.base.name, data, spec.recipe.name))
    return f"{'.'.join(parts)}.s{spec.seed}.{digest(spec)[:12]}"


def log_spaced(steps: int, points: int = 8) -> list[int]:
    """About `points` log-spaced steps from 1 to `steps`, both included, after step 0."""
    spaced = {round(steps ** (i / max(points - 1, 1))) for i in range(points)} if steps > 1 else {1}
    return [0, *sorted(spaced | {steps})]
