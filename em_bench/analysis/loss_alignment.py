"""How much of alignment the loss explains, and what is left for the optimiser.

The paper's regression: x is the natural log of the final *training* loss, insecure code left out, a slope and an intercept for each
optimiser (`TRAIN`, `regressed`). The same on held-out narrow loss (`HELD_OUT`) stands beside it.

Lines go through runs. The seeds of a setting (model, dataset, batch size, learning rate) are repeats: intervals draw, or
cluster by, whole settings, and by single runs only where an optimiser has one setting.
"""

import warnings

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy.stats import t

from em_bench.analysis.dynamics import followed
from em_bench.analysis.missing import Missing
from em_bench.analysis.runs import CODE_SETS
from em_bench.records import Record

TRAIN, HELD_OUT = "train_loss", "narrow_loss"
LOSSES = {TRAIN: "final training loss", HELD_OUT: "final held-out narrow loss"}
MIN_RUNS = 6
DRAWS = 1000
NEAR = 0.1  # provenance C. In log loss, so a tenth of the loss: how near a run of each optimiser must lie on either side.


class Fit(Record):
    """R^2 of alignment on the log of a loss, with a bootstrap interval over settings; `parameters` are coefficients."""

    group: str
    runs: int
    settings: int
    parameters: int
    slope: float
    r2: float
    r2_low: float
    r2_high: float
    adjusted_r2: float


class AtLoss(Record):
    """Predicted alignment of an optimiser at a loss, 95 % interval of its line; `inside`: it has runs on both sides."""

    recipe: str
    loss: float
    alignment: float
    low: float
    high: float
    runs: int
    inside: bool = True


class Residual(Record):
    """Mean residual of an optimiser from one line through all of them, early and late in training.

    change: late minus early, mean over runs with its 95 % t interval; None where there is no scatter between runs.
    """

    recipe: str
    early: float
    late: float
    change: float
    low: float | None
    high: float | None
    runs: int


def regressed(cells: pd.DataFrame) -> pd.DataFrame:
    """The runs that the paper's regression takes: without insecure code."""
    return cells[~cells["dataset"].isin(CODE_SETS)].reset_index(drop=True)


def points(table: pd.DataFrame, loss: str = HELD_OUT) -> pd.DataFrame:
    """Rows that have both a loss and an alignment, with the natural log of the loss."""
    kept = table[np.isfinite(table["alignment"]) & (table[loss] > 0)]
    return kept.assign(log_loss=np.log(kept[loss].astype(float)), loss=kept[loss])


def settings(rows: pd.DataFrame) -> np.ndarray:
    """The number of each row's setting, [rows]: rows that differ in their seed alone share it."""
    return rows.groupby(["model", "dataset", "recipe", "batch_size", "learning_rate"], sort=False).ngroup().to_numpy()


def overall(table: pd.DataFrame, group: str = "all", loss: str = HELD_OUT) -> Fit | Missing:
    """One line through all runs."""
    return _fit(points(table, loss), "alignment ~ log_loss", group)


def within_datasets(table: pd.DataFrame, loss: str = HELD_OUT) -> Fit | Missing:
    """One line through all runs after each dataset's means are taken out: what the loss explains beside the dataset."""
    kept = points(table, loss)
    datasets = kept["dataset"].nunique()
    if datasets < 2:
        return Missing(reason="one dataset; nothing to take out")
    for column in ("alignment", "log_loss"):
        kept[column] -= kept.groupby("dataset")[column].transform("mean")
    found = _fit(kept, "alignment ~ log_loss", "within datasets")
    if isinstance(found, Missing) or found.runs - datasets < 2:
        return found if isinstance(found, Missing) else Missing(reason="within datasets: as many means as runs")
    adjusted = 1 - (1 - found.r2) * (found.runs - datasets) / (found.runs - datasets - 1)
    return found.model_copy(update={"adjusted_r2": adjusted})


def by_recipe(table: pd.DataFrame, loss: str = HELD_OUT) -> dict[str, Fit | Missing]:
    """A line an optimiser."""
    return {r: overall(table[table["recipe"] == r], r, loss) for r in dict.fromkeys(table["recipe"])}


def stratified(table: pd.DataFrame, loss: str = HELD_OUT) -> Fit | Missing:
    """An intercept and a slope for every optimiser in one model; its adjusted R^2 is the paper's 0.94."""
    kept = points(table, loss)
    sizes = kept["recipe"].value_counts()
    if len(sizes) < 2:
        return Missing(reason="one optimiser; there is nothing to stratify by")
    if sizes.min() < 3:
        return Missing(reason=f"{sizes.idxmin()} has {sizes.min()} runs; a line of its own needs 3")
    return _fit(kept, "alignment ~ log_loss * C(recipe)", "stratified")


def at_equal_loss(table: pd.DataFrame, loss: str = HELD_OUT) -> tuple[AtLoss, ...] | Missing:
    """Every optimiser's line at the middle of the losses that all of them cover; no line is used outside its runs.

    Nor where its optimiser has no run within NEAR on either side: there it would be drawn, not measured.
    """
    kept = points(table, loss)
    sizes = kept["recipe"].value_counts()
    if len(sizes) < 2 or sizes.min() < 3:
        return Missing(reason="needs two optimisers with 3 runs each")
    low = kept.groupby("recipe")["log_loss"].min().max()
    high = kept.groupby("recipe")["log_loss"].max().min()
    if low > high:
        who = kept.groupby("recipe")["loss"]
        return Missing(
            reason=f"no loss is common to all: {who.min().idxmax()} ends at {np.exp(low):.3f} or above, "
            f"{who.max().idxmin()} at {np.exp(high):.3f} or below"
        )
    at = (low + high) / 2
    if reason := unsupported(kept, at):
        return Missing(reason=reason)
    return lines_at(kept, at)


def unsupported(kept: pd.DataFrame, at: float) -> str | None:
    """Why not every optimiser has runs within NEAR of the natural log of a loss, on both sides of it."""
    for recipe in dict.fromkeys(kept["recipe"]):
        away = kept.loc[kept["recipe"] == recipe, "log_loss"] - at
        for side, ahead in (("below", -away[away <= 0]), ("above", away[away >= 0])):
            if ahead.empty:
                return f"cannot tell: {recipe} has no run {side} a loss of {np.exp(at):.3f}"
            if ahead.min() > NEAR:
                nearest = float(np.exp(at + (-1 if side == "below" else 1) * ahead.min()))
                return (
                    f"cannot tell: the loss to compare at is {np.exp(at):.3f}, and the nearest run of {recipe} "
                    f"{side} it ends at {nearest:.3f}, further than a tenth"
                )
    return None


def lines_at(kept: pd.DataFrame, at: float) -> tuple[AtLoss, ...] | Missing:
    """Every optimiser's line at the natural log of a loss; `kept` as `points` gives it."""
    out = []
    for recipe in dict.fromkeys(kept["recipe"]):
        rows = kept[kept["recipe"] == recipe]
        if rows["log_loss"].nunique() < 2:
            return Missing(reason=f"{recipe}: all runs end at one loss; it has no line")
        fitted = smf.ols("alignment ~ log_loss", rows).fit()
        if fitted.ssr <= 1e-12 * max(fitted.centered_tss, 1.0):
            return Missing(reason=f"{recipe}: its runs lie on a line exactly; the interval has no width to estimate")
        groups, df = settings(rows), fitted.df_resid
        clusters = len(set(groups))
        if clusters == 2:
            return Missing(reason=f"{recipe}: 2 settings; the interval of a line needs 3")
        if clusters > 1:
            fitted, df = fitted.get_robustcov_results("cluster", groups=groups), clusters - 1
        where = np.array([1.0, at])
        mean = float(where @ fitted.params)
        half = float(t.ppf(0.975, df) * np.sqrt(where @ np.asarray(fitted.cov_params()) @ where))
        inside = bool(rows["log_loss"].min() <= at <= rows["log_loss"].max())
        found = {"alignment": mean, "low": mean - half, "high": mean + half, "runs": len(rows), "inside": inside}
        out.append(AtLoss(recipe=recipe, loss=float(np.exp(at)), **found))
    return tuple(out)


def residuals(ended: pd.DataFrame, checkpoints: pd.DataFrame) -> tuple[Residual, ...] | Missing:
    """One line through all checkpoints of all optimisers; mean residuals in either half of the log steps."""
    if checkpoints.empty:
        return Missing(reason="no checkpoint was evaluated; set evaluation.checkpoints or a part's in the preset")
    kept = points(followed(ended, checkpoints))
    if kept["recipe"].nunique() < 2 or len(kept) < MIN_RUNS or kept["log_loss"].nunique() < 2:
        return Missing(reason="fewer than two optimisers with evaluated checkpoints")
    if kept["alignment"].nunique() < 2:
        return Missing(reason="all checkpoints have the same alignment")
    fitted = smf.ols("alignment ~ log_loss", kept).fit()
    middle = np.sqrt(kept["steps"].max())
    out = []
    for recipe in dict.fromkeys(kept["recipe"]):
        mine = kept.assign(residual=fitted.resid, late=kept["step"] > middle)[kept["recipe"] == recipe]
        halves = mine.pivot_table(index="run", columns="late", values="residual").dropna()
        if halves.shape[1] < 2 or halves.empty:
            return Missing(reason=f"{recipe}: no run with checkpoints in both halves of training")
        early, late = halves[False], halves[True]
        change, runs = late - early, len(halves)
        sd = float(change.std(ddof=1)) if runs > 1 else 0.0
        half = float(t.ppf(0.975, runs - 1)) * sd / np.sqrt(runs) if sd > 1e-9 else None
        mean = float(change.mean())
        out.append(
            Residual(
                recipe=recipe,
                early=float(early.mean()),
                late=float(late.mean()),
                change=mean,
                low=None if half is None else mean - half,
                high=None if half is None else mean + half,
                runs=runs,
            )
        )
    return tuple(out)


def _fit(kept: pd.DataFrame, formula: str, group: str, seed: int = 0) -> Fit | Missing:
    if len(kept) < MIN_RUNS:
        return Missing(reason=f"{group}: {len(kept)} run{'s' * (len(kept) != 1)} with a loss and an alignment; needs {MIN_RUNS}")
    for column, what in (("log_loss", "narrow loss"), ("alignment", "alignment")):
        if kept[column].nunique() < 2:
            return Missing(reason=f"{group}: all runs have the same {what}")
    fitted = smf.ols(formula, kept).fit()
    if fitted.df_resid < 1:
        return Missing(reason=f"{group}: as many coefficients as runs")
    if fitted.ssr <= 1e-12 * fitted.centered_tss:
        return Missing(reason=f"{group}: the runs lie on a line exactly; there is no scatter to make an interval from")
    rng = np.random.default_rng(seed)
    y, x, drawn = fitted.model.endog, fitted.model.exog, []
    recipes, where = kept["recipe"].to_numpy(), settings(kept)
    strata = []  # an optimiser's settings, each as the places of its runs
    for recipe in dict.fromkeys(recipes):
        mine = np.flatnonzero(recipes == recipe)
        whole = [mine[where[mine] == s] for s in np.unique(where[mine])]
        strata.append(whole if len(whole) > 1 else [np.array([i]) for i in mine])
    for _ in range(DRAWS):  # within optimisers: the design keeps its shape
        rows = np.concatenate([stratum[i] for stratum in strata for i in rng.integers(len(stratum), size=len(stratum))])
        taken, rest = y[rows], len(rows) - x.shape[1]
        total = ((taken - taken.mean()) ** 2).sum()
        if total > 0 and rest > 0:
            coefficients = np.linalg.lstsq(x[rows], taken, rcond=None)[0]
            r2 = 1 - ((taken - x[rows] @ coefficients) ** 2).sum() / total
            drawn.append(1 - (1 - r2) * (len(rows) - 1) / rest if group == "stratified" else r2)
    low, high = np.quantile(drawn, [0.025, 0.975])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        adjusted = float(fitted.rsquared_adj)
    slope = float(fitted.params["log_loss"])
    return Fit(
        group=group,
        runs=len(kept),
        settings=sum(map(len, strata)),
        parameters=x.shape[1],
        slope=slope,
        r2=float(fitted.rsquared),
        r2_low=float(low),
        r2_high=float(high),
        adjusted_r2=adjusted,
    )
