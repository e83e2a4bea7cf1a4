"""Two arms compared on runs that differ in nothing else.

A setting is a model and a dataset: its batch sizes resemble each other (rates of one model correlate at .91 to .96 over them) and its
seeds are repeats, so their differences are averaged first, and a setting counts once. Settings of one model resemble each other too, and
those of one dataset: both are drawn from more of their kind, crossed. With shares s of the settings in the mean's deviation, V_f = G / (G - 1)
sum_g (sum of s in level g)^2 for each of the two factors (one of a single level has none). A setting's own chance is in both, so what the two
leave of a setting is taken off once: V = V_model + V_dataset - residual mean square / settings, at least each of the two (Searle, Casella and
McCulloch 1992, 4.3); t at Satterthwaite's degrees of V_model + V_dataset. How often it holds: `benchmarks/coverage.py`.
Where there is one setting only, its seeds are the units, each averaged over what else varies.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from em_bench.analysis.missing import Missing
from em_bench.analysis.runs import UNIT
from em_bench.records import Record
from em_bench.scoring.intervals import clustered_variance, t_quantile

SETTING = ("model", "dataset")


class Difference(Record):
    """Mean of b - a over units with its 95 % t interval; sd: of one unit that would give this interval."""

    mean: float
    low: float
    high: float
    sd: float
    units: int
    unit: Literal["settings", "seeds"]
    pairs: int

    @property
    def over(self) -> str:
        """What the interval stands on, in words."""
        return f"{self.units} {self.unit} ({self.pairs} pairs of runs)" if self.unit == "settings" else f"{self.units} seeds"


def paired(a: pd.DataFrame, b: pd.DataFrame, value: str, on: Sequence[str] = tuple(UNIT)) -> Difference | Missing:
    """b minus a on the rows that agree in `on`; a pair counts if both have the value."""
    on = list(on)
    both = a[[*on, value]].merge(b[[*on, value]], on=on, suffixes=("_a", "_b"))
    if both.duplicated(on).any():
        return Missing(reason=f"several runs share {', '.join(on)}: no unique pairs")
    both = both.assign(d=(both[f"{value}_b"] - both[f"{value}_a"]).astype(float))
    both = both[np.isfinite(both["d"])]
    return over_settings(both.set_index(on)["d"])


def over_settings(differences: pd.Series) -> Difference | Missing:
    """The mean of differences of pairs, indexed by what the two of a pair share."""
    on = list(differences.index.names)
    settings = differences.groupby(level=[o for o in on if o in SETTING], sort=False, dropna=False).mean()
    unit: Literal["settings", "seeds"] = "settings" if len(settings) > 1 else "seeds"
    units = settings if len(settings) > 1 or "seed" not in on else differences.groupby(level="seed").mean()
    if len(units) < 2:
        return Missing(
            reason=f"{len(units)} pair{'' if len(units) == 1 else 's'} of runs that differ in nothing else; an interval needs 2"
        )
    mean = float(units.mean())
    variance, degrees = _crossed(units, mean)
    if np.sqrt(variance) <= 1e-12 * max(abs(mean), 1):  # an average over seeds need not be exact
        return Missing(reason=f"all {len(units)} {unit} differ by {mean:g}: there is no spread to make an interval from")
    half, sd = t_quantile(degrees) * float(np.sqrt(variance)), float(np.sqrt(variance * len(units)))
    return Difference(mean=mean, low=mean - half, high=mean + half, sd=sd, units=len(units), unit=unit, pairs=len(differences))


def _crossed(units: pd.Series, mean: float) -> tuple[float, float]:
    """The variance of the mean of settings, or of seeds, and its degrees of freedom."""
    shares = (units - mean) / len(units)
    factors = [shares.groupby(level=name, dropna=False).sum() for name in units.index.names]
    found = [(v, len(of) - 1) for of in factors if (v := clustered_variance([*of])) is not None]
    both, scatter = sum(v for v, _ in found), sum(v * v / degrees for v, degrees in found)
    own = _left(units) if len(found) > 1 else 0.0
    return max([*(v for v, _ in found), both - own]), both * both / scatter if scatter else len(units) - 1


def _left(units: pd.Series) -> float:
    """What model and dataset together leave of a setting: its mean square over the number of settings; without degrees of freedom, all."""
    levels = [pd.get_dummies(units.index.get_level_values(name), dtype=float).to_numpy() for name in units.index.names]
    fitted, _, rank, _ = np.linalg.lstsq(np.hstack(levels), units.to_numpy(float), rcond=None)
    if rank == len(units):
        return np.inf
    return float(((units - np.hstack(levels) @ fitted) ** 2).sum() / (len(units) - rank) / len(units))
