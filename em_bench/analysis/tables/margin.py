"""The tables of a preset that measures the margin."""

from collections.abc import Sequence
from itertools import groupby

from em_bench.analysis.margin_rows import MarginRow, margin_rows, shift
from em_bench.analysis.tables.table import Table, table
from em_bench.data.models import load_models
from em_bench.records import Results

SMALL = 1e9  # parameters, below which a page says so (C)
WHY_TWO = (
    "At the end of training optimisers have learnt the narrow task to different degrees, and a larger shift may be no more than more "
    "learning. At one narrow loss they have learnt it alike, and what differs is how. Learning rates and the matched loss were fixed on "
    "held-out narrow loss alone, before any margin was seen."
)
COLUMNS = [
    ("recipe", "recipe", ""),
    ("learning rate", "learning_rate", "g"),
    ("lambda", "spectral_lambda", "g"),
    ("narrow loss", "narrow_loss", ".3f"),
    ("shift, matched", "shift_matched", ""),
    ("shift, end", "shift_end", ""),
    ("less control", "beyond_control", ""),
    ("flips", "flips", ""),
    ("neutral", "neutral", ".3f"),
    ("norm", "norm", ".2f"),
    ("F/N − 1/√r", "flatness_gap", ".3f"),
]


def sizes(rows: Sequence[MarginRow]) -> dict[str, float]:
    """Parameters of the models that are known."""
    known = load_models()
    return {m: n for m in dict.fromkeys(r.model for r in rows) if m in known and (n := known[m].parameters)}


def margin_tables(results: Results) -> list[Table]:
    """A table a training set; the untouched base's margins in the captions."""
    rows = margin_rows(results)
    bases = ", ".join(f"{r.model} {shift(r.margin)}" for r in rows if r.recipe is None)
    out = []
    for dataset, of in groupby((r for r in rows if r.recipe), key=lambda r: r.dataset):
        mine = list(of)
        targets = ", ".join(sorted({f"{r.target:g}" for r in mine if r.target})) or "no target"
        seeds = max(r.adapters for r in mine)
        of_what = (
            "one seed: of other questions, not of other trainings"
            if seeds == 1
            else f"{seeds} seeds: of other questions and trainings"
        )
        caption = (
            f"Nats a byte, 95 % by domain; {of_what}. Matched at a narrow loss of {targets}. Less "
            f"control: at the end, less the same recipe on good answers to the same questions. The base's margin: {bases}."
        )
        out.append(table(f"margin-{dataset}", str(dataset), caption, COLUMNS, map(_line, mine)))
    return out


def _line(r: MarginRow) -> tuple:
    flips = f"{r.to_misaligned.value:.2f} / {r.to_aligned.value:.2f}" if r.to_misaligned and r.to_aligned else None
    shifts = (shift(r.at_target) or None, shift(r.at_end) or None, shift(r.beyond_control) or None)
    return r.recipe, r.learning_rate, r.spectral_lambda, r.narrow_loss, *shifts, flips, r.neutral, r.norm, r.flatness_gap


def measurements_table(results: Results) -> Table:
    """Every measurement, checkpoints too."""
    columns = [("dataset", "dataset", ""), ("recipe", "recipe", ""), ("lambda", "spectral_lambda", "g"), ("step", "step", "d")]
    columns += [
        ("narrow loss", "narrow_loss", ".3f"),
        ("margin", "margin", ""),
        ("shift", "shift", ""),
        ("neutral", "neutral", ".3f"),
    ]
    rows = [
        (
            c.dataset or "base",
            c.recipe,
            c.spectral_lambda,
            c.step or c.steps or 0,
            c.narrow_loss,
            shift(c.overall.margin) or None,
            shift(c.overall.shift) or None,
            c.neutral,
        )
        for c in results.margins
    ]
    return table("steps", "Every measurement", "In the order of the results.", columns, rows)
