"""How many times the largest marginal rate is the smallest, with a bootstrap over questions and seeds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from em_bench.analysis.beside import Beside, beside
from em_bench.analysis.marginals import comparable
from em_bench.analysis.missing import Missing
from em_bench.analysis.runs import counts
from em_bench.records import Record

DRAWS = 2000


class Spread(Record):
    """rate(highest) / rate(lowest); which two is settled by the data and then held in every draw."""

    axis: str
    highest: str
    lowest: str
    ratio: float
    low: float
    high: float | None
    note: str = ""


def bootstrap_rates(
    table: pd.DataFrame, axis: str, others: Sequence[str], value: str = "rate", draws: int = DRAWS, seed: int = 0
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Levels of an axis, their values [levels] and bootstrap draws of them [draws, levels], as fractions or points.

    A draw resamples questions (all runs share them) and, where a combination of `others` has several seeds, its seeds.
    """
    rng = np.random.default_rng(seed)
    y, n = counts(table, value)
    questions = rng.multinomial(n.shape[1], np.full(n.shape[1], 1 / n.shape[1]), size=draws).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        p, drawn = y.sum(1) / n.sum(1), (questions @ y.T) / (questions @ n.T)
    levels = sorted(set(table[axis].astype(str)))
    keys = list(zip(table[axis].astype(str), *(table[o] for o in others), strict=True))
    values, out = np.zeros(len(levels)), np.zeros((draws, len(levels)))
    for i, level in enumerate(levels):
        groups: dict[tuple, list[int]] = {}
        for row, key in enumerate(keys):
            if key[0] == level:
                groups.setdefault(key[1:], []).append(row)
        for rows in groups.values():
            values[i] += p[rows].mean() / len(groups)
            taken = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=draws) / len(rows)
            out[:, i] += (taken * drawn[:, rows]).sum(1) / len(groups)
    return levels, values, out


def spread(table: pd.DataFrame, axis: str, others: Sequence[str], seed: int = 0) -> Spread | Missing:
    """The spread ratio over the levels of `axis`, on the combinations of `others` that every level has."""
    found = comparable(table, axis, others)
    if isinstance(found, Missing):
        return found
    if (table["valued"] == 0).any():
        return Missing(reason=f"{int((table['valued'] == 0).sum())} runs have no coherent response and thus no rate")
    table = found[0]
    for level, rows in table.groupby(axis):
        if why := Beside(**beside(rows)).verdict:
            return Missing(reason=f"{why.partition(': ')[2]}: {level}; its rate is not ranked")
    if len({c.cluster(q) for c in table["cell"] for q in c.questions}) < 2:
        return Missing(reason="one question; an interval needs several")
    levels, values, drawn = bootstrap_rates(table, axis, others, seed=seed)
    top, bottom = int(values.argmax()), int(values.argmin())
    if values[top] == 0:
        return Missing(reason="every rate is 0")
    if values[top] == values[bottom]:
        return Missing(reason=f"every rate is {100 * values[top]:g} %")
    if values[bottom] == 0:
        return Missing(
            reason=f"the rate of {levels[bottom]} is 0, so there is no ratio ({levels[top]}: {100 * values[top]:.1f} %)"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = drawn[:, top] / drawn[:, bottom]
    if np.ptp(ratios) == 0:
        return Missing(reason="questions and seeds do not differ; there is no scatter to make an interval from")
    low, high = np.nanquantile(np.where(np.isnan(ratios), np.inf, ratios), [0.025, 0.975], method="inverted_cdf")
    return Spread(
        axis=axis,
        highest=levels[top],
        lowest=levels[bottom],
        ratio=float(values[top] / values[bottom]),
        low=float(low),
        high=float(high) if np.isfinite(high) else None,
        note="" if np.isfinite(high) else "no upper bound: the lowest rate is 0 in over 2.5 % of the draws",
    )
