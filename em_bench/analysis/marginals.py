"""Misaligned rate and mean alignment by one axis of the main sweep, every level on the same combinations of the others.

A level's value is the mean over combinations of each combination's own value, so that a combination counts once
however many of its responses were coherent and however many seeds it has. Only combinations that every level has take
part. The interval treats questions as clusters, as in `em_bench.scoring.intervals`: with y_kg hits among m_kg
responses of row k to question g and p_k = y_k / n_k, question g moves the weighted mean sum_k w_k p_k by sum_k w_k
(y_kg - p_k m_kg) / n_k. Where the runs have several seeds, which all cells share, the variance of the seeds' own means over their number is
added (`with_seeds`).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from em_bench.analysis.beside import Beside, beside
from em_bench.analysis.missing import Missing
from em_bench.analysis.runs import counts
from em_bench.records import Record
from em_bench.scoring.intervals import bounded_interval, clustered_variance, rate_interval, with_seeds

AXES = ("recipe", "model", "dataset", "batch_size")
NAMES = {"recipe": "optimiser", "model": "model", "dataset": "dataset", "batch_size": "batch size"}


class Level(Beside):
    """One level of an axis. Rates in per cent, alignment 0-100."""

    level: str
    rate: float
    rate_low: float | None
    rate_high: float | None
    alignment: float
    alignment_low: float | None
    alignment_high: float | None
    code: float
    runs: int
    responses: int


class Marginal(Record):
    """All levels of an axis, compared on `shared` of the `combinations` of the other axes."""

    axis: str
    levels: tuple[Level, ...]
    shared: int
    combinations: int


def marginal(table: pd.DataFrame, axis: str, others: Sequence[str] = ()) -> Marginal | Missing:
    """The levels of `axis`; `others` are the axes that make a combination, by default the rest of `AXES`."""
    others = list(others) or [a for a in AXES if a != axis]
    found = comparable(table, axis, others)
    if isinstance(found, Missing):
        return found
    kept, shared, combinations = found
    levels = list(
        dict.fromkeys(kept.sort_values(["family", "parameters"], kind="stable")[axis] if axis == "model" else kept[axis])
    )
    levels = levels if axis in ("recipe", "model", "dataset") else sorted(levels)
    made = []
    for level in levels:
        rows = kept[kept[axis] == level]
        seeds = rows.groupby("combination")["valued"].transform("size").to_numpy()
        weights = 1 / (shared * seeds)
        rate, alignment = (weighted(rows, weights, v) for v in ("rate", "alignment"))
        made.append(
            Level(
                level=str(level),
                **beside(rows, weights),
                code=float(weights @ rows["code"]),
                runs=len(rows),
                responses=int(rows["valued"].sum()),
                rate=rate[0],
                rate_low=rate[1],
                rate_high=rate[2],
                alignment=alignment[0],
                alignment_low=alignment[1],
                alignment_high=alignment[2],
            )
        )
    return Marginal(axis=axis, levels=tuple(made), shared=shared, combinations=combinations)


class Spread(Record):
    """rate(highest) / rate(lowest). The data pick the two, so of equal levels it lies above 1 too: it has no interval."""

    highest: str
    lowest: str
    ratio: float


def spread(table: pd.DataFrame, axis: str) -> Spread | Missing:
    """How many times the largest marginal rate of `axis` is the smallest."""
    found = marginal(table, axis)
    if isinstance(found, Missing):
        return found
    if gone := int((table["valued"] == 0).sum()):
        return Missing(reason=f"{gone} runs have no coherent response and thus no rate")
    if why := next((f"{v.partition(': ')[2]}: {m.level}" for m in found.levels if (v := m.verdict)), None):
        return Missing(reason=f"{why}; its rate is not ranked")
    top, bottom = (of(found.levels, key=lambda m: m.rate) for of in (max, min))
    if top.rate == bottom.rate:
        return Missing(reason=f"every rate is {top.rate:g} %")
    if bottom.rate == 0:
        return Missing(reason=f"the rate of {bottom.level} is 0, so there is no ratio ({top.level}: {top.rate:.1f} %)")
    return Spread(highest=top.level, lowest=bottom.level, ratio=top.rate / bottom.rate)


def comparable(table: pd.DataFrame, axis: str, others: Sequence[str]) -> tuple[pd.DataFrame, int, int] | Missing:
    """The rows of the combinations of `others` that every level of `axis` has a rate for; their number, and of all.

    The column `combination` is added.
    """
    table, name = table[table["valued"] > 0], NAMES[axis]
    if table[axis].nunique() < 2:
        return Missing(
            reason=f"{name}: {'only ' + str(table[axis].iloc[0]) if len(table) else 'no run with a rate'}; nothing to compare"
        )
    whole = list(zip(*(table[o] for o in others), strict=True))
    having = [{k for k, at in zip(whole, table[axis], strict=True) if at == level} for level in set(table[axis])]
    shared = set.intersection(*having)
    if not shared:
        return Missing(reason=f"{name}: no combination of {', '.join(NAMES.get(o, o) for o in others)} has a run at every level")
    kept = table[[k in shared for k in whole]].assign(combination=[k for k in whole if k in shared])
    return kept.reset_index(drop=True), len(shared), len(set(whole))


def weighted(rows: pd.DataFrame, weights: np.ndarray, value: str) -> tuple[float, float | None, float | None]:
    """sum_k w_k p_k over the rows, in per cent or points, with its 95 % interval over clusters and seeds.

    The intervals are those of `em_bench.scoring.intervals`: Wilson's for a rate, so that 0 of n is not certainty, and
    for alignment on its scale. No interval for one question, nor for a mean of scores that are all the same.
    """
    y, n = counts(rows, value)
    p = y.sum(1) / n.sum(1)
    mean = float(weights @ p)
    shares = (weights / n.sum(1)) @ (y - p[:, None] * n)
    shares = shares[n.sum(0) > 0]
    variance, clusters, degrees = clustered_variance(list(shares)), len(shares), None
    if variance is not None:
        own = [rows["seed"].to_numpy() == s for s in sorted(set(rows["seed"]))]
        variance, degrees = with_seeds(variance, clusters, [float(weights[at] @ p[at] / weights[at].sum()) for at in own])
    if value == "rate":
        e = rate_interval(min(max(mean, 0.0), 1.0), variance, int(n.sum()), clusters, degrees=degrees)
        return 100 * mean, None if e.low is None else 100 * e.low, None if e.high is None else 100 * e.high
    e = bounded_interval(mean, variance or None, int(n.sum()), clusters, (0.0, 100.0), degrees)
    return mean, e.low, e.high
