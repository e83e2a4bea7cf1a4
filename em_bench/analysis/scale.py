"""Misaligned rate against model size under Adam, with an exact test for trend inside families."""

from itertools import permutations, product
from math import factorial, prod

import numpy as np
import pandas as pd

from em_bench.analysis.beside import Beside, beside
from em_bench.analysis.marginals import weighted
from em_bench.analysis.missing import Missing
from em_bench.records import Record

EXACT = 50_000  # most rearrangements that are counted one by one
SAMPLED = 20_000
FROM = 0.9e9  # parameters: claims of scale about open models are made from 1B up; organisms are all far below


class ModelRate(Beside):
    """A model under one optimiser: mean over datasets, batch sizes and seeds; interval clustered by question."""

    model: str
    family: str
    parameters: float
    rate: float
    low: float | None
    high: float | None
    alignment: float
    runs: int


class Trend(Record):
    """Kendall's S summed over families (pairs that rise minus pairs that fall with size) and its permutation p.

    Models of `left_out` have no rate here; those of `broken` have one that is not ranked.
    """

    models: tuple[ModelRate, ...]
    s: int
    pairs: int
    p: float
    smallest_p: float
    exact: bool
    left_out: tuple[str, ...]
    broken: tuple[str, ...] = ()


def scale(cells: pd.DataFrame, recipe: str = "adam") -> Trend | Missing:
    """Rates by size of the runs at lambda 0 and the recipe's own rate, on the settings that all models share."""
    rows = cells[(cells["recipe"] == recipe) & (cells["spectral_lambda"] == 0) & cells["own_rate"] & (cells["valued"] > 0)]
    unsized = sorted({m for m, size in zip(rows["model"], rows["parameters"], strict=True) if not np.isfinite(size)})
    below = (rows["parameters"] < FROM) & ~rows["model"].str.startswith("organism-")
    unsized = sorted({*unsized, *rows.loc[below, "model"]})
    rows = rows[np.isfinite(rows["parameters"]) & ~below]
    if rows["model"].nunique() < 2:
        return Missing(reason=f"{rows['model'].nunique()} models of known size under {recipe}; a trend needs 2")
    keys = list(zip(rows["dataset"], rows["batch_size"], strict=True))
    shared = set.intersection(
        *({k for k, m in zip(keys, rows["model"], strict=True) if m == model} for model in set(rows["model"]))
    )
    if not shared:
        return Missing(reason="no dataset and batch size have runs of every model")
    rows = rows[[k in shared for k in keys]]
    models = []
    for model in sorted(
        set(rows["model"]),
        key=lambda m: (rows[rows["model"] == m]["family"].iloc[0], rows[rows["model"] == m]["parameters"].iloc[0]),
    ):
        mine = rows[rows["model"] == model]
        seeds = mine.groupby(["dataset", "batch_size"])["valued"].transform("size").to_numpy()
        weights = 1 / (len(shared) * seeds)
        rate, low, high = weighted(mine, weights, "rate")
        models.append(
            ModelRate(
                model=model,
                family=mine["family"].iloc[0],
                parameters=float(mine["parameters"].iloc[0]),
                rate=rate,
                low=low,
                high=high,
                alignment=weighted(mine, weights, "alignment")[0],
                runs=len(mine),
                **beside(mine, weights),
            )
        )
    whole = [m for m in models if not m.verdict]
    families = [[m for m in whole if m.family == f] for f in dict.fromkeys(m.family for m in whole)]
    families = [f for f in families if len(f) > 1]
    if not families:
        return Missing(reason="no family has two sizes" + (" that are not broken" if len(whole) < len(models) else ""))
    if len({m.rate for f in families for m in f}) == 1:
        return Missing(reason=f"every model has the rate {whole[0].rate:g} %; nothing can rise or fall")
    s, p, smallest, exact = trend_test([[m.parameters for m in f] for f in families], [[m.rate for m in f] for f in families])
    return Trend(
        models=tuple(models),
        s=s,
        pairs=sum(len(f) * (len(f) - 1) // 2 for f in families),
        p=p,
        smallest_p=smallest,
        exact=exact,
        left_out=tuple(unsized),
        broken=tuple(m.model for m in models if m.verdict),
    )


def trend_test(sizes: list[list[float]], values: list[list[float]], seed: int = 0) -> tuple[int, float, float, bool]:
    """S, the p of |S| under shuffling values within families, the smallest possible p, whether it is exact."""

    def statistic(size: list[float], value) -> int:
        return sum(
            int(np.sign(size[j] - size[i]) * np.sign(value[j] - value[i]))
            for i in range(len(size))
            for j in range(i + 1, len(size))
        )

    s = sum(map(statistic, sizes, values))
    if prod(factorial(len(v)) for v in values) <= EXACT:
        each = [[statistic(size, v) for v in permutations(value)] for size, value in zip(sizes, values, strict=True)]
        null = np.array([sum(c) for c in product(*each)])
        p = float((np.abs(null) >= abs(s)).mean())
        return s, p, float((np.abs(null) >= np.abs(null).max()).mean()), True
    rng = np.random.default_rng(seed)
    null = np.array([sum(statistic(a, rng.permutation(v)) for a, v in zip(sizes, values, strict=True)) for _ in range(SAMPLED)])
    return s, float((1 + (np.abs(null) >= abs(s)).sum()) / (1 + SAMPLED)), 1 / (1 + SAMPLED), False
