"""Which effects there are: factorial analysis of variance, type II, with effect sizes, and how much each axis varies.

The model has every axis that varies and, where the runs allow it, all their two-way interactions. Type II: an effect is
what it explains beyond all effects that do not contain it. The runs are the units; the questions are held. Where some settings have more
runs (seeds) than others, a setting's runs are averaged first: with unequal numbers the mean squares of the tests below do not match.

Models and datasets are draws from more of them, so an axis is tested over its interactions with them, not over the residual: with one
such interaction its mean square, with two their sum less the residual's, with Satterthwaite's degrees of freedom (Kirk 2013, 10.5).

The components are standard deviations of random intercepts by REML (statsmodels' MixedLM), one an axis, seeds and the optimiser's
interactions too. A component of k levels has about k - 1 degrees of freedom, an interaction the product of its axes', and the chi-squared
interval of those; one of zero has no upper end.
"""

import warnings
from itertools import combinations

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy.stats import chi2
from scipy.stats import f as f_distribution
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from em_bench.analysis.marginals import AXES, NAMES
from em_bench.analysis.missing import Missing
from em_bench.records import Record

RANDOM = ("model", "dataset")
NONE = 0.05  # points: a component as good as zero
MIN_RESIDUAL = 5  # degrees of freedom below which a test of variance says nothing


class Effect(Record):
    """An axis, or two that interact. eta2 = SS / SS_total; partial = SS / (SS + SS_residual).

    f, p and holm are None for an axis whose interactions with models and datasets the runs do not show.
    """

    axes: tuple[str, ...]
    sum_of_squares: float
    df: int
    f: float | None
    error_df: float | None
    p: float | None
    holm: float | None
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


def anova(table: pd.DataFrame, value: str = "rate", axes: tuple[str, ...] = AXES) -> Anova | Missing:
    """The effects of `axes` on a column of the main sweep, a row a run."""
    table = table[np.isfinite(table[value])]
    runs, varying = len(table), [a for a in axes if table[a].nunique() > 1]
    left_out = tuple(
        f"{NAMES[a]}: {'only ' + str(table[a].iloc[0]) if len(table) else f'no run with a {value}'}"
        for a in axes
        if a not in varying
    )
    if not varying:
        return Missing(reason=f"no axis varies ({'; '.join(left_out)})")
    if table[value].nunique() < 2:
        return Missing(reason=f"all {len(table)} runs have the same {value}: {table[value].iloc[0]:g}; no variance to share out")
    if table.groupby(varying).size().nunique() > 1:
        table = table.groupby(varying, as_index=False)[value].mean()
    alone: list[tuple[str, ...]] = [(a,) for a in varying]
    model = _model(table, value, alone)
    if np.linalg.matrix_rank(model.exog) < model.exog.shape[1]:
        return Missing(reason=f"the design does not separate {', '.join(varying)}: some of them always change together")
    if model.df_resid < MIN_RESIDUAL:
        return Missing(
            reason=f"{runs} runs of {len(table)} settings leave {model.df_resid:g} residual degrees of freedom; needs {MIN_RESIDUAL}"
        )
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
    tests = [_test(of, t, terms, varying) for t in terms]
    known = [test[2] for test in tests if test]
    corrected = iter(multipletests(known, method="holm")[1] if known else ())
    effects = tuple(
        Effect(
            axes=term,
            sum_of_squares=float(row["sum_sq"]),
            df=int(row["df"]),
            f=test and test[0],
            error_df=test and test[1],
            p=test and test[2],
            holm=test and float(next(corrected)),
            eta2=float(row["sum_sq"]) / fitted.centered_tss,
            partial_eta2=float(row["sum_sq"]) / (float(row["sum_sq"]) + residual),
        )
        for term, row, test in zip(terms, rows, tests, strict=True)
    )
    return Anova(
        value=value,
        effects=effects,
        residual_df=int(fitted.df_resid),
        residual_sum_of_squares=residual,
        r2=float(fitted.rsquared),
        left_out=left_out,
        runs=runs,
    )


def _test(
    of: pd.DataFrame, term: tuple[str, ...], terms: list[tuple[str, ...]], varying: list[str]
) -> tuple[float, float, float] | None:
    """F of a term, its error's degrees of freedom, and p; None where its error cannot be estimated."""
    mean, df = (of["sum_sq"] / of["df"]).to_dict(), of["df"].to_dict()
    errors = (
        [tuple(a for a in varying if a in (term[0], r)) for r in RANDOM if r in varying and r != term[0]]
        if len(term) == 1
        else []
    )
    if any(e not in terms for e in errors):
        return None
    parts = [(1.0, _name(e)) for e in errors] or [(1.0, "Residual")]
    if len(errors) > 1:
        parts.append((1.0 - len(errors), "Residual"))
    error = sum(w * mean[name] for w, name in parts)
    if error <= mean["Residual"]:
        parts, error = [(1.0, "Residual")], mean["Residual"]
    error_df = error**2 / sum((w * mean[name]) ** 2 / df[name] for w, name in parts)
    f = float(mean[_name(term)] / error)
    return f, float(error_df), float(f_distribution.sf(f, df[_name(term)], error_df))


class Component(Record):
    """The standard deviation that an axis adds, with its 95 % interval; residual: what is left between runs."""

    name: str
    levels: int
    sd: float
    low: float | None = None
    high: float | None = None


def components(table: pd.DataFrame, value: str = "rate") -> tuple[Component, ...] | Missing:
    """How much each axis varies, the largest first, the residual last."""
    table = table[np.isfinite(table[value])].assign(one=1)
    axes = [a for a in (*AXES, "seed") if table[a].nunique() > 1]
    if len(axes) < 2 or len(table) < MIN_RESIDUAL + sum(table[a].nunique() for a in axes):
        return Missing(reason=f"{len(table)} runs over {len(axes)} axes that vary: too few to share out the variance")
    if table[value].nunique() < 2:
        return Missing(reason=f"all {len(table)} runs have the same {value}; no variance to share out")
    crossed = {a: f"0 + C({a})" for a in axes}
    if "recipe" in axes:
        # With one run in every pair of levels an interaction is the residual by another name.
        several = [r for r in RANDOM if r in axes and table.groupby(["recipe", r]).ngroups < len(table)]
        crossed |= {f"recipe x {r}": f"0 + C(recipe):C({r})" for r in several}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a component of 0 lies on the edge of what there can be
        fitted = smf.mixedlm(f"{value} ~ 1", table, groups="one", vc_formula=crossed).fit(reml=True)
    found = []
    for name, variance in zip(fitted.model.exog_vc.names, fitted.vcomp, strict=True):
        parts = name.split(" x ")
        levels, df = table.groupby(parts).ngroups, int(np.prod([table[p].nunique() - 1 for p in parts]))
        sd = float(np.sqrt(max(variance, 0.0)))
        low, high = (float(sd * np.sqrt(df / chi2.ppf(q, df))) for q in (0.975, 0.025))
        found.append(Component(name=name, levels=levels, sd=sd, low=low, high=high if sd > NONE else None))
    left = Component(name="between runs alike in all of these", levels=len(table), sd=float(np.sqrt(fitted.scale)))
    return (*sorted(found, key=lambda c: -c.sd), left)


def levels_needed(ratio: float = 2.0) -> int:
    """Levels of each of two axes at which a standard deviation `ratio` times the other's is told from it with a probability of 80 %."""
    n = 3
    while f_distribution.sf(f_distribution.ppf(0.975, n - 1, n - 1) / ratio**2, n - 1, n - 1) < 0.8:
        n += 1
    return n


def _model(table: pd.DataFrame, value: str, terms: list[tuple[str, ...]]):
    return smf.ols(f"{value} ~ {' + '.join(map(_name, terms))}", table)


def _name(term: tuple[str, ...]) -> str:
    return ":".join(f"C({a})" for a in term)
