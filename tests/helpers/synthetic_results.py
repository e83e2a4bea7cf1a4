"""Results with planted truth, made through the records."""

from itertools import product

import numpy as np

from em_bench.files import digest
from em_bench.records import (
    CellResult,
    Estimate,
    Machine,
    Metrics,
    QuestionCounts,
    Results,
    ScoreRecord,
    SpectralSummary,
    SpectrumCurve,
    TrajectoryPoint,
)

RECIPES = ("sgd", "adam", "adamw", "lion", "muon")
RATES = {"sgd": 1e-2, "adam": 1e-3, "adamw": 1e-3, "lion": 3e-4, "muon": 2e-3}
NONE = Estimate(value=None, low=None, high=None, stderr=None, n=0, clusters=0)
MACHINE = Machine(em_bench="0.1.0", packages={}, python="3.11", platform="Linux", cpu="test", threads=1)
SHA = digest("synthetic")


def summary(gap=0.1, layers=14) -> SpectralSummary:
    """A spectrum whose flatness gap is given."""
    return SpectralSummary(
        layers=layers,
        stable_rank=8 - 20 * gap,
        entropy=2 - gap,
        condition_number=10.0,
        frobenius_nuclear=gap + 8**-0.5,
        flatness_gap=gap,
    )


def cell(
    recipe="adam",
    model="organism-qwen3",
    dataset="medical",
    batch_size=32,
    seed=0,
    *,
    spectral_lambda=0.0,
    learning_rate=None,
    rate=0.2,
    misaligned=None,
    questions=20,
    samples=10,
    loss=0.52,
    step=None,
    gap=0.1,
    convention="code_as_zero",
    code=0,
    prefix="q",
) -> CellResult:
    """A cell: `misaligned` hits a question (list), or the share `rate` of each question's samples."""
    if misaligned is None:
        total = round(rate * questions * samples)
        misaligned = [total // questions + (i < total % questions) for i in range(questions)]
    counts = [
        QuestionCounts(
            question_id=f"{prefix}{i}",
            cluster=f"{prefix}{i}",
            variant="plain",
            counts={
                "misaligned": int(m),
                "aligned": samples - int(m),
                "incoherent": 0,
                "refusal": 0,
                "unjudged": 0,
                "code": 0,
            },
            code=code,
            alignment=[0.0] * int(m) + [100.0] * (samples - int(m)),
        )
        for i, m in enumerate(misaligned)
    ]
    lr = RATES.get(recipe, 1e-3) if learning_rate is None else learning_rate
    settings = (model, dataset, recipe, batch_size, seed, spectral_lambda, lr)
    run = digest(list(map(str, settings)))[:12]
    share = sum(misaligned) / (samples * len(misaligned))
    fields = (
        {}
        if recipe is None
        else {
            "recipe": recipe,
            "dataset": dataset,
            "batch_size": batch_size,
            "seed": seed,
            "learning_rate": lr,
            "spectral_lambda": spectral_lambda,
            "run_id": run,
            "narrow_loss": loss,
            "steps": 60,
            "spectral": summary(gap),
            "spectrum": SpectrumCurve(mean=[1.0, 0.5], lower_quartile=[1.0, 0.4], upper_quartile=[1.0, 0.6]),
            "trajectory": [
                TrajectoryPoint(step=0, narrow_loss=3.0),
                TrajectoryPoint(step=60, narrow_loss=loss, spectral=summary(gap)),
            ],
        }
    )
    metrics = Metrics(
        counts={k: sum(q.counts[k] for q in counts) for k in counts[0].counts},
        code=code * len(counts),
        misaligned_rate=NONE.model_copy(update={"value": share}),
        mean_alignment=NONE,
        coherent_rate=NONE,
        refusal_rate=NONE,
        code_rate=NONE,
        unjudged_rate=NONE,
    )
    score = ScoreRecord(verdicts_sha256=SHA, convention=convention, overall=metrics, by_variant={})
    return CellResult(
        model=model,
        step=step,
        responses_sha256=digest([*map(str, settings), step, list(map(int, misaligned))]),
        score=score,
        questions=counts,
        **fields,
    )


def results(cells, checkpoints=(), choices=(), missing=(), version="0.1.0", preset="made") -> Results:
    """A results.json of these cells."""
    return Results(
        preset=preset,
        preset_sha256=SHA,
        cells=list(cells),
        checkpoints=list(checkpoints),
        choices=list(choices),
        missing=list(missing),
        machine=MACHINE.model_copy(update={"em_bench": version}),
        created="2026-01-01T00:00:00+00:00",
    )


def factorial(
    rate,
    recipes=RECIPES,
    models=("organism-qwen3", "organism-qwen3-small"),
    datasets=("medical", "code"),
    batches=(8, 32),
    seeds=(0, 1),
    **options,
):
    """A full factorial; `rate` maps (recipe, model, dataset, batch, seed) to its rate; so may options."""
    out = []
    for key in product(recipes, models, datasets, batches, seeds):
        extra = {k: v(*key) if callable(v) else v for k, v in options.items()}
        out.append(cell(*key, rate=float(np.clip(rate(*key), 0, 1)), **extra))
    return out
