"""Two arms compared on runs that differ in nothing else.

The unit is the setting (model, dataset): its batch sizes resemble each other (rates of one model correlate at .91 to .96 over them) and its
seeds are repeats, so their differences are averaged first, and a setting counts once. Where there is one setting only, its seeds are the
units, each averaged over what else varies.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import t

from em_bench.analysis.missing import Missing
from em_bench.analysis.runs import UNIT
from em_bench.records import Record

SETTING = ("model", "dataset")


class Difference(Record):
    """Mean of b - a over units with its 95 % t interval; sd is the standard deviation of a unit's difference."""

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
    settings = both.groupby([o for o in on if o in SETTING], sort=False, dropna=False)["d"].mean()
    unit = "settings" if len(settings) > 1 else "seeds"
    d = (settings if len(settings) > 1 or "seed" not in on else both.groupby("seed")["d"].mean()).to_numpy(float)
    if len(d) < 2:
        return Missing(
            reason=f"{len(d)} pair{'' if len(d) == 1 else 's'} of runs that differ in nothing else; an interval needs 2"
        )
    mean, sd = float(d.mean()), float(d.std(ddof=1))
    if sd <= 1e-12 * max(abs(mean), 1):  # an average over seeds need not be exact
        return Missing(reason=f"all {len(d)} {unit} differ by {mean:g}: there is no spread to make an interval from")
    half = float(t.ppf(0.975, len(d) - 1)) * sd / np.sqrt(len(d))
    return Difference(mean=mean, low=mean - half, high=mean + half, sd=sd, units=len(d), unit=unit, pairs=len(both))
