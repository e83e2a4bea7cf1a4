"""Is the mitigation free when nothing is wrong? Runs on good data with the spectral term, less those without it."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, variance

from em_bench.analysis.summary import SHARED, arms, at_end, row_of
from em_bench.analysis.tables.preset import told_apart
from em_bench.analysis.tables.table import Table, interval, per_cent, table
from em_bench.records import CellResult, Estimate, Results
from em_bench.scoring import difference
from em_bench.scoring.intervals import mean_interval
from em_bench.scoring.levels import COHERENT, OF_ASKED

RECIPE, LAMBDA = SHARED.index("recipe"), SHARED.index("spectral_lambda")
CAPTION = (
    "At the end of training on good data, the term less no term, pairs of runs of one dataset and seed. Loss: mean over datasets, t over seeds; "
    "shares of answers: paired by cluster and by seed. Nothing here was to be mitigated, so what differs is the mitigation's cost."
)
COLUMNS = [
    ("recipe", "recipe", ""),
    ("lambda", "spectral_lambda", "g"),
    ("narrow loss without it", "narrow_loss", ".3f"),
    ("with it", "narrow_loss_added", "+.3f"),
    ("95 %", "narrow_loss_added_interval", ""),
    ("coherent without it, %", "coherent_pct", ".1f"),
    ("with it, points", "coherent_change_points", "+.1f"),
    ("95 %", "coherent_change_interval", ""),
    ("misaligned of asked without it, %", "misaligned_of_asked_pct", ".1f"),
    ("with it, points", "misaligned_change_points", "+.1f"),
    ("95 %", "misaligned_change_interval", ""),
    ("runs", "runs", "d"),
]


def good_data_table(results: Results) -> Table | None:
    """A row a recipe and lambda; None where no recipe has runs on good data both with the term and without it."""
    groups = {arm: cells for arm, cells in arms(results).items() if arm[-1]}
    rows = []
    several = told_apart(cells[0] for cells in groups.values())
    for arm, cells in groups.items():
        plain = next((c for a, c in groups.items() if not a[LAMBDA] and _without(a) == _without(arm)), None)
        both = _pairs(plain, cells) if arm[LAMBDA] and plain else None
        if both and both[0]:
            settings = [getattr(cells[0], name) for _, name, _ in several]
            rows.append((arm[RECIPE], *settings, arm[LAMBDA], *_compared(*both)))
    columns = [COLUMNS[0], *several, *COLUMNS[1:]]
    return table("good-data", "Where nothing is wrong", CAPTION, columns, rows) if rows else None


def _without(arm: tuple) -> tuple:
    return arm[:LAMBDA] + arm[LAMBDA + 1 :]


def _pairs(plain: Sequence[CellResult], on: Sequence[CellResult]) -> tuple[list[CellResult], list[CellResult]]:
    """The runs of either side that the other has too, by dataset and seed."""
    at = [{(c.dataset, c.seed): c for c in cells} for cells in (plain, on)]
    both = sorted(at[0].keys() & at[1].keys(), key=str)
    return [at[0][k] for k in both], [at[1][k] for k in both]


def _compared(plain: list[CellResult], on: list[CellResult]) -> tuple:
    """The values from the third of COLUMNS on."""
    loss, own = loss_difference(plain, on), row_of(plain)
    before, after = [at_end(c) for c in plain], [at_end(c) for c in on]
    coherent, misaligned = (per_cent(difference(after, before, rate), "+.1f") for rate in (COHERENT, OF_ASKED))
    losses = own.narrow_loss, loss.value, interval(loss.low, loss.high, "+.3f")
    mine = (per_cent(e)[0] for e in (own.coherent_rate, own.misaligned_of_asked))
    return (*losses, next(mine), *coherent, next(mine), *misaligned, len(plain))


def loss_difference(plain: Sequence[CellResult], on: Sequence[CellResult]) -> Estimate:
    """Nats by which the last narrow loss of the paired runs `on` lies above that of `plain`; the seeds' means are the units."""
    by_seed: dict[int | None, list[float]] = defaultdict(list)
    for a, b in zip(plain, on, strict=True):
        if a.narrow_loss is not None and b.narrow_loss is not None:
            by_seed[a.seed].append(b.narrow_loss - a.narrow_loss)
    means = [fmean(d) for d in by_seed.values()]
    if not means:
        return Estimate(value=None, low=None, high=None, stderr=None, n=0, clusters=0)
    of_mean = variance(means) / len(means) if len(means) > 1 else None
    return mean_interval(fmean(means), of_mean, len(means), len(means), (-math.inf, math.inf))
