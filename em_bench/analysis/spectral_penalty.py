"""What the spectral term buys and costs: alignment gained and narrow loss paid against the same run at lambda 0."""

import numpy as np
import pandas as pd

from em_bench.analysis.beside import Beside, beside
from em_bench.analysis.missing import Missing
from em_bench.analysis.paired import Difference, paired
from em_bench.analysis.runs import UNIT

TOLERANCE = 0.01  # nats: the rule by which a lambda is picked, on narrow loss alone


class Step(Beside):
    """One lambda of one optimiser. Means over the runs that also exist at lambda 0."""

    recipe: str
    spectral_lambda: float
    runs: int
    alignment: float | None
    rate: float | None
    gain: Difference | Missing | None
    cost: Difference | Missing | None
    rate_change: Difference | Missing | None
    efficient: bool
    picked: bool


def lambda_path(cells: pd.DataFrame) -> tuple[Step, ...] | Missing:
    """Every optimiser's path. `efficient`: no other lambda of that optimiser has both less loss and more alignment; broken models
    take no part.

    `picked`: the largest lambda whose mean loss exceeds that of lambda 0 by at most `TOLERANCE`; alignment has no say.
    """
    cells = cells[cells["own_rate"]]
    if not (cells["spectral_lambda"] > 0).any():
        return Missing(reason="no run has the spectral term on")
    out = []
    for recipe in dict.fromkeys(cells["recipe"]):
        mine = cells[cells["recipe"] == recipe]
        plain, on = mine[mine["spectral_lambda"] == 0], mine[mine["spectral_lambda"] > 0]
        if plain.empty or on.empty:
            continue
        out += _mark(
            [_step(recipe, 0.0, plain.merge(on[_KEY].drop_duplicates(), on=_KEY), None)]
            + [_step(recipe, value, on[on["spectral_lambda"] == value], plain) for value in sorted(set(on["spectral_lambda"]))]
        )
    return tuple(out) or Missing(reason="no optimiser has runs both with and without the spectral term")


_KEY = UNIT


def _step(recipe: str, value: float, rows: pd.DataFrame, plain: pd.DataFrame | None) -> Step:
    if plain is not None:
        rows = rows.merge(plain[_KEY], on=_KEY)

    def mean(column: str) -> float | None:
        known = rows[column].to_numpy(float)
        known = known[np.isfinite(known)]
        return float(known.mean()) if len(known) else None

    changes = {"gain": "alignment", "cost": "narrow_loss", "rate_change": "rate"}
    compared = {k: None if plain is None else paired(plain, rows, column) for k, column in changes.items()}
    columns = {c: mean(c) for c in ("alignment", "rate")}
    return Step(
        recipe=recipe,
        spectral_lambda=value,
        runs=len(rows),
        efficient=False,
        picked=False,
        **columns,
        **beside(rows),
        **compared,
    )


def _mark(steps: list[Step]) -> list[Step]:
    able = [s for s in steps if not s.verdict]
    known = [(s.narrow_loss, s.alignment) for s in able if s.alignment is not None and s.narrow_loss is not None]

    def efficient(s: Step) -> bool:
        if s.verdict or s.narrow_loss is None or s.alignment is None:
            return False
        mine = (s.narrow_loss, s.alignment)
        return not any(loss <= mine[0] and alignment >= mine[1] and (loss, alignment) != mine for loss, alignment in known)

    plain = steps[0].narrow_loss
    losses = [(s.spectral_lambda, s.narrow_loss) for s in steps[1:] if s.narrow_loss is not None]
    within = [v for v, loss in losses if plain is not None and loss <= plain + TOLERANCE]
    picked = max(within, default=None)
    return [s.model_copy(update={"efficient": efficient(s), "picked": s.spectral_lambda == picked}) for s in steps]
