"""The shape of the updates: singular values by optimiser, over training, by projection and depth, against alignment."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm

from em_bench.analysis.missing import Missing
from em_bench.analysis.power import MOST
from em_bench.analysis.runs import SETTINGS, SPECTRAL
from em_bench.records import CellResult, Record, SpectralSummary

MIN_RUNS = 8


class Curve(Record):
    """Singular values over the layer's largest by rank index: mean and quartiles over layers, averaged over runs."""

    recipe: str
    spectral_lambda: float
    runs: int
    mean: tuple[float, ...]
    lower_quartile: tuple[float, ...]
    upper_quartile: tuple[float, ...]


class Shape(Record):
    """Mean spectral quantities of a group of runs: by optimiser and lambda, checkpoint, projection or depth.

    Of the condition number the median over runs: one layer without full rank makes it boundless.
    """

    recipe: str
    group: str
    runs: int
    stable_rank: float
    entropy: float
    condition_number: float
    frobenius_nuclear: float
    flatness_gap: float


class Correlation(Record):
    """Pearson's r over runs; `given` what was held fixed. Association, not cause.

    The 95 % interval is Fisher's z, its width from the number of optimisers, which make a spectrum flat or not; of one optimiser, from
    its settings: seeds of a setting are no independent runs. `needed`: units that would tell such an r from 0 with 80 % probability.
    """

    group: str
    of: str
    given: str
    r: float
    low: float
    high: float
    runs: int
    settings: int
    needed: int | None = None


def curves(cells: pd.DataFrame) -> tuple[Curve, ...] | Missing:
    """A curve for each optimiser and lambda at its own learning rate."""
    out = []
    rows = cells[cells["own_rate"] & np.array([c.spectrum is not None for c in cells["cell"]], bool)]
    for (recipe, value), group in rows.groupby(["recipe", "spectral_lambda"], sort=False):
        spectra = [c.spectrum for c in group["cell"]]
        shortest = min(len(s.mean) for s in spectra)
        parts = {
            f: tuple(np.mean([getattr(s, f)[:shortest] for s in spectra], axis=0))
            for f in ("mean", "lower_quartile", "upper_quartile")
        }
        out.append(Curve(recipe=recipe, spectral_lambda=value, runs=len(group), **parts))
    return tuple(out) or Missing(reason="no run has a spectrum")


def at_the_end(cells: pd.DataFrame) -> tuple[Shape, ...] | Missing:
    """Means over the runs of each optimiser and lambda."""
    rows = cells[cells["own_rate"]]
    groups = rows.groupby(["recipe", "spectral_lambda"], sort=False)
    shapes = [_shape(recipe, f"lambda {value:g}", [c.spectral for c in g["cell"]]) for (recipe, value), g in groups]
    return tuple(s for s in shapes if s) or Missing(reason="no run has a spectrum")


def over_training(main: pd.DataFrame) -> tuple[Shape, ...] | Missing:
    """Means over the main sweep's runs of each optimiser at each log-spaced step at which every run has moved."""
    out = []
    for recipe, rows in main.groupby("recipe", sort=False):
        points: dict[int, list[SpectralSummary]] = {}
        for cell in rows["cell"]:
            for p in cell.trajectory:
                if p.spectral:
                    points.setdefault(p.step, []).append(p.spectral)
        whole = {step: found for step, found in sorted(points.items()) if len(found) == len(rows)}
        out += [s for step, found in whole.items() if (s := _shape(recipe, f"step {step}", found))]
    return tuple(out) or Missing(reason="no run has a spectrum at its checkpoints")


def by_place(main: pd.DataFrame) -> tuple[Shape, ...] | Missing:
    """Means by projection and by depth."""
    out = []
    for recipe, rows in main.groupby("recipe", sort=False):
        cells: list[CellResult] = list(rows["cell"])
        names = sorted({name for c in cells for name in c.spectral_groups}, key=by_kind)
        out += [s for n in names if (s := _shape(recipe, n, [c.spectral_groups[n] for c in cells if n in c.spectral_groups]))]
    return tuple(out) or Missing(reason="the results hold no spectra by projection; evaluate the runs again with this version")


def by_kind(name: str) -> tuple[bool, int, str]:
    """Sorts groups of layers: projections, then depths by their number."""
    return name.startswith("layer "), len(name), name


HELD = ("nothing", "log narrow loss", "log narrow loss, dataset, model, batch size")


def flatness_and_alignment(cells: pd.DataFrame, group: str = "all runs") -> tuple[Correlation | Missing, ...] | Missing:
    """Correlation of flatness (minus the flatness gap) with alignment: plain, at matched loss, and within settings."""
    rows = cells[np.isfinite(cells["flatness_gap"]) & np.isfinite(cells["alignment"]) & (cells["narrow_loss"] > 0)]
    if len(rows) < MIN_RUNS:
        return Missing(reason=f"{group}: {len(rows)} runs with a spectrum, a loss and an alignment; needs {MIN_RUNS}")
    flat, alignment, loss = (
        -rows["flatness_gap"].to_numpy(),
        rows["alignment"].to_numpy(),
        np.log(rows["narrow_loss"].to_numpy()),
    )
    dummies = [pd.get_dummies(rows[a].astype(str), drop_first=True).to_numpy(float) for a in ("dataset", "model", "batch_size")]
    settings = np.column_stack([loss, *dummies])
    n = rows["recipe"].nunique()
    n = n if n > 1 else int(rows.groupby([s for s in SETTINGS if s != "seed"]).ngroups)
    n = n if n > 1 else len(rows)  # one setting: its seeds are all there is
    given = (np.empty((len(rows), 0)), loss[:, None], settings)
    return tuple(partial_correlation(flat, alignment, g, group, what, n) for g, what in zip(given, HELD, strict=True))


def partial_correlation(
    a: np.ndarray, b: np.ndarray, given: np.ndarray, group: str = "", what: str = "", settings: int | None = None
) -> Correlation | Missing:
    """Correlation of the residuals of a and b [runs] after regression on an intercept and `given` [runs, k].

    `settings`: how many of the runs are independent; by default all.
    """
    n = len(a) if settings is None else settings
    x = np.column_stack([np.ones(len(a)), given])
    ra, rb = (v - x @ np.linalg.lstsq(x, v, rcond=None)[0] for v in (a, b))
    if any(r.std() <= 1e-9 * np.abs(v).max() for r, v in ((ra, a), (rb, b))):
        return Missing(reason=f"{group}: flatness or alignment does not vary once {what} is held fixed")
    held = int(np.linalg.matrix_rank(x)) - 1
    df = n - 3 - held
    r = float(np.clip(ra @ rb / np.sqrt((ra @ ra) * (rb @ rb)), -1, 1))
    needed = units_for(r, held)
    if df < 1:
        return Missing(
            reason=f"cannot tell with {what} held fixed: r {r:+.2f} of {n} optimisers or settings, which takes {needed}"
        )
    z, half = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), float(norm.ppf(0.975)) / np.sqrt(df)
    return Correlation(
        group=group,
        of="flatness and alignment",
        given=what,
        r=r,
        low=float(np.tanh(z - half)),
        high=float(np.tanh(z + half)),
        runs=len(a),
        settings=n,
        needed=needed if np.tanh(z - half) <= 0 <= np.tanh(z + half) else None,
    )


def units_for(r: float, held: int) -> int:
    """Units at which Fisher's z tells a correlation from 0 with a probability of 80 %, `held` numbers held fixed."""
    z = abs(float(np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))))
    told = float(norm.ppf(0.975) + norm.ppf(0.8))
    return min(MOST, int(np.ceil((told / max(z, 1e-9)) ** 2)) + 3 + held)


def _shape(recipe: str, group: str, found: Sequence[SpectralSummary | None]) -> Shape | None:
    known = [s for s in found if s is not None]
    if not known:
        return None
    means = {f: float(np.mean([getattr(s, f) for s in known])) for f in SPECTRAL}
    means["condition_number"] = float(np.median([s.condition_number for s in known]))
    return Shape(recipe=recipe, group=group, runs=len(known), **means)
