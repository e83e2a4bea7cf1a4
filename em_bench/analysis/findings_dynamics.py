"""What the claims of the dynamics and the regularisation study say of our runs.

Each measure gives its finding, needs unchecked, and the rows that it stands on.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from em_bench.analysis.dynamics import NO_EM, followed
from em_bench.analysis.finding import Claim, Evidence, above, below, decided, inside, unknown
from em_bench.analysis.findings_end_of_training import SAME, Measured, share
from em_bench.analysis.missing import Missing
from em_bench.analysis.paired import Difference, over_settings
from em_bench.analysis.power import Rule, Verdict
from em_bench.analysis.preconditions import hits
from em_bench.analysis.runs import CODE_SETS, UNIT, Runs
from em_bench.analysis.spectral_penalty import Step, lambda_path

DRAWS = 1000


def paths(runs: Runs) -> pd.DataFrame:
    """Every evaluated step of the dynamics study, the ends among them, in training loss."""
    rows = followed(runs.of("dynamics"), runs.checkpoints)
    return rows[(rows["spectral_lambda"] == 0) & np.isfinite(rows["log_train_loss"]) & np.isfinite(rows["alignment"])]


def parted(rows: pd.DataFrame) -> pd.DataFrame:
    """Muon minus Lion in alignment at equal training loss, a row a setting: columns early, late and fallen.

    Early is a quarter down the range of ln loss that both have, late its lowest end; between checkpoints, linear in ln loss. Fallen: how
    far the mean of both lies early below the highest alignment of either path.
    """
    out = []
    for _, mine in rows[rows["recipe"].isin(("lion", "muon"))].groupby(UNIT, dropna=False):
        two = {r: g.sort_values("log_train_loss") for r, g in mine.groupby("recipe")}
        if len(two) < 2 or any(g["run"].nunique() > 1 or len(g) < 2 for g in two.values()):
            continue
        low, high = (f(g["log_train_loss"].agg(e) for g in two.values()) for f, e in ((max, "min"), (min, "max")))
        if low < high:
            at = (high - 0.25 * (high - low), low)
            muon, lion = (np.interp(at, two[r]["log_train_loss"], two[r]["alignment"]) for r in ("muon", "lion"))
            found = {"early": muon[0] - lion[0], "late": muon[1] - lion[1]}
            found["fallen"] = mine["alignment"].max() - (muon[0] + lion[0]) / 2
            out.append(dict(zip(UNIT, mine[UNIT].iloc[0], strict=True)) | found)
    return pd.DataFrame(out, columns=[*UNIT, "early", "late", "fallen"])


def _parted(values: Callable[[pd.DataFrame], pd.Series], rule: Rule) -> Callable[[Runs, Claim], Measured]:
    def measure(runs: Runs, claim: Claim) -> Measured:
        if runs.checkpoints.empty:
            return unknown(claim, runs.cells.iloc[:0], "no checkpoint was evaluated"), runs.cells.iloc[:0]
        rows = paths(runs)
        rows = rows[rows["recipe"].isin(("lion", "muon"))]
        table = parted(rows)
        if claim.id == "shared-early" and (fallen := table["fallen"].mean()) < SAME:
            return unknown(
                claim, rows, f"alignment has fallen by {fallen:.1f} points there: no curve to share yet; needs {SAME:g}"
            ), rows
        d = over_settings(values(table.set_index(list(UNIT))))
        if isinstance(d, Missing):
            return unknown(claim, rows, f"Muon and Lion at equal training losses: {d.reason}"), rows
        said = f"{d.mean:+z.1f} points [{d.low:+z.1f}, {d.high:+z.1f}] over {d.over}"
        return decided(claim, rule, Evidence(d.mean, d.low, d.high, d.sd, d.unit, d.units), said, rows), rows

    return measure


def _unpredicted(low: float, high: float) -> Verdict:
    return "reproduces" if high < 1 else "does not" if low == 1 else "cannot tell"


def _loss_order(runs: Runs, claim: Claim) -> Measured:
    if runs.checkpoints.empty:
        return unknown(claim, runs.cells.iloc[:0], "no checkpoint was evaluated"), runs.cells.iloc[:0]
    rows = paths(runs)
    ends = rows[rows["step"] == rows["steps"]]
    tables = [
        ends.pivot_table(index=[u for u in UNIT if u != "seed"], columns="recipe", values=v)
        for v in ("log_train_loss", "alignment")
    ]
    losses, alignments = (v.dropna().to_numpy() for v in tables)
    if losses.shape != alignments.shape or len(losses) < 2 or losses.shape[1] < 3:
        return unknown(claim, rows, "needs three optimisers followed on two settings that all share"), rows
    rng = np.random.default_rng(0)

    def tau(i: np.ndarray) -> float:
        return float(kendalltau(losses[i].mean(0), alignments[i].mean(0)).statistic)

    n = len(losses)
    value, drawn = tau(np.arange(n)), [tau(rng.integers(n, size=n)) for _ in range(DRAWS)]
    drawn = [d for d in drawn if np.isfinite(d)]
    if not drawn or not np.isfinite(value):
        return unknown(claim, rows, "all optimisers end alike; there is no order"), rows
    low, high = map(float, np.quantile(drawn, [0.025, 0.975]))
    said = f"tau {value:+.2f} [{low:+.2f}, {high:+.2f}] over {losses.shape[1]} optimisers and {n} settings"
    sd = (high - low) / 3.92 * np.sqrt(n)
    return decided(claim, _unpredicted, Evidence(value, low, high, sd, "settings", n), said, rows), rows


def regularised(runs: Runs) -> pd.DataFrame:
    """The runs with the term and those without it that they are held against, which are the dynamics study's."""
    return runs.of("regularisation", "dynamics")


def _term(recipe: str, rule: Rule) -> Callable[[Runs, Claim], Measured]:
    def measure(runs: Runs, claim: Claim) -> Measured:
        cells = regularised(runs)
        path = lambda_path(cells)
        mine = cells[(cells["recipe"] == recipe) & cells["own_rate"]]
        step = _picked(path, recipe)
        if isinstance(step, Missing):
            return unknown(claim, mine, step.reason), mine
        mine = _both_arms(mine, step.spectral_lambda)
        d = step.gain
        assert d is not None  # the step picked is not lambda 0's own
        if isinstance(d, Missing):
            return unknown(claim, mine, d.reason), mine
        cost = f", cost {step.cost.mean:+z.3f} nats" if isinstance(step.cost, Difference) else ""
        said = f"{d.mean:+z.1f} points [{d.low:+z.1f}, {d.high:+z.1f}] at lambda {step.spectral_lambda:g}{cost}, over {d.over}"
        return decided(claim, rule, Evidence(d.mean, d.low, d.high, d.sd, d.unit, d.units), said, mine), mine

    return measure


def _both_arms(rows: pd.DataFrame, value: float) -> pd.DataFrame:
    """The runs at lambda 0 and at `value` that differ in nothing else: what has no partner is no comparison."""
    arms = [rows[rows["spectral_lambda"] == v] for v in (0.0, value)]
    shared = arms[0][UNIT].merge(arms[1][UNIT].drop_duplicates(), on=UNIT).drop_duplicates()
    return pd.concat([a.merge(shared, on=UNIT) for a in arms], ignore_index=True)


def _picked(path: tuple[Step, ...] | Missing, recipe: str) -> Step | Missing:
    if isinstance(path, Missing):
        return path
    some = [s for s in path if s.recipe == recipe]
    if picked := [s for s in some if s.picked]:
        return picked[0]
    if any(s.narrow_loss is None for s in some):
        return Missing(reason="the narrow losses are not known, so no lambda can be picked")
    return Missing(reason="every lambda costs more than 0.01 nats" if some else f"no {recipe} runs with and without the term")


def _code_clean(runs: Runs, claim: Claim) -> Measured:
    cells = regularised(runs)
    step = _picked(lambda_path(cells), "adam")
    if isinstance(step, Missing):
        return unknown(claim, cells.iloc[:0], step.reason), cells.iloc[:0]
    code = cells[cells["own_rate"] & (cells["recipe"] == "adam") & cells["dataset"].isin(CODE_SETS)]
    both = _both_arms(code, step.spectral_lambda)
    on = both[both["spectral_lambda"] > 0]
    return share(claim, below(NO_EM), hits(on), on, f"lambda {step.spectral_lambda:g}"), both


MEASURES: dict[str, Callable[[Runs, Claim], Measured]] = {
    "shared-early": _parted(lambda table: table["early"], inside(SAME)),
    "part-late": _parted(lambda table: table["late"] - table["early"], above(0.0)),
    "loss-order": _loss_order,
    "term-adam": _term("adam", above(0.0)),
    "term-lion": _term("lion", above(0.0)),
    "term-muon": _term("muon", above(0.0)),
    "term-sgd": _term("sgd", below(0.0)),
    "code-clean": _code_clean,
}
