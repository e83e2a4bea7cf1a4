"""Which axis matters most: factorial analysis of variance, type II, with effect sizes.

The model has every axis that varies and, where the runs allow it, all their two-way interactions. Type II: an effect is
what it explains beyond all effects that do not contain it. The runs are the units; the questions are held.
"""

import warnings
from itertools import combinations

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from em_bench.analysis.marginals import AXES, NAMES
from em_bench.analysis.missing import Missing
from em_bench.records import Record

MIN_RESIDUAL = 5  # degrees of freedom below which a test of variance says nothing


class Effect(Record):
    """An axis, or two that interact. eta2 = SS / SS_total; partial = SS / (SS + SS_residual)."""

    axes: tuple[str, ...]
    sum_of_squares: float
    df: int
    f: float
    p: float
    holm: float
    eta2: float
    partial_eta2: float


class Anova(Record):
    """The axes that vary, then their interactions. `holm` are the p values corrected for the number of effects."""

    value: str
    effects: tuple[Effect, ...]
    residual_df: int
    residual_sum_of_squares: float
    r2: float
    left_out: tuple[str, ...]
    runs: int

    @property
    def main(self) -> tuple[Effect, ...]:
        """The effects of one axis."""
        return tuple(e for e in self.effects if len(e.axes) == 1)

    @property
    def most(self) -> str:
        """The axis with the largest share of the variance."""
        return max(self.main, key=lambda e: e.eta2).axes[0]


def anova(table: pd.DataFrame, value: str = "rate", axes: tuple[str, ...] = AXES) -> Anova | Missing:
    """The effects of `axes` on a column of the main sweep, a row a run."""
    table = table[np.isfinite(table[value])]
    varying = [a for a in axes if table[a].nunique() > 1]
    left_out = tuple(
        f"{NAMES[a]}: {'only ' + str(table[a].iloc[0]) if len(table) else f'no run with a {value}'}"
        for a in axes
        if a not in varying
    )
    if not varying:
        return Missing(reason=f"no axis varies ({'; '.join(left_out)})")
    if table[value].nunique() < 2:
        return Missing(reason=f"all {len(table)} runs have the same {value}: {table[value].iloc[0]:g}; no variance to share out")
    alone: list[tuple[str, ...]] = [(a,) for a in varying]
    model = _model(table, value, alone)
    if np.linalg.matrix_rank(model.exog) < model.exog.shape[1]:
        return Missing(reason=f"the design does not separate {', '.join(varying)}: some of them always change together")
    if model.df_resid < MIN_RESIDUAL:
        return Missing(reason=f"{len(table)} runs leave {model.df_resid:g} residual degrees of freedom; needs {MIN_RESIDUAL}")
    terms = [*alone, *combinations(varying, 2)]
    whole = _model(table, value, terms)
    if np.linalg.matrix_rank(whole.exog) < whole.exog.shape[1] or whole.df_resid < MIN_RESIDUAL:
        terms, whole = alone, model
    fitted = whole.fit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an F over a residual of zero
        of = anova_lm(fitted, typ=2)
    residual = float(of.loc["Residual", "sum_sq"])
    if residual < 1e-12 * fitted.centered_tss:
        return Missing(reason="the axes explain the value exactly; without a residual there is no test")
    rows = [of.loc[_name(t)] for t in terms]
    corrected = multipletests([row["PR(>F)"] for row in rows], method="holm")[1]
    effects = tuple(
        Effect(
            axes=term,
            sum_of_squares=float(row["sum_sq"]),
            df=int(row["df"]),
            f=float(row["F"]),
            p=float(row["PR(>F)"]),
            holm=float(p),
            eta2=float(row["sum_sq"]) / fitted.centered_tss,
            partial_eta2=float(row["sum_sq"]) / (float(row["sum_sq"]) + residual),
        )
        for term, row, p in zip(terms, rows, corrected, strict=True)
    )
    return Anova(
        value=value,
        effects=effects,
        residual_df=int(fitted.df_resid),
        residual_sum_of_squares=residual,
        r2=float(fitted.rsquared),
        left_out=left_out,
        runs=len(table),
    )


def _model(table: pd.DataFrame, value: str, terms: list[tuple[str, ...]]):
    return smf.ols(f"{value} ~ {' + '.join(map(_name, terms))}", table)


def _name(term: tuple[str, ...]) -> str:
    return ":".join(f"C({a})" for a in term)
