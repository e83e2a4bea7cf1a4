"""What runs must be before a claim is decided on them: each need by name, as a check that says what is amiss.

A need takes the rows that a finding stands on, both arms of it, and returns a reason, or None where it is met. Thresholds are
our choice (provenance C).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from em_bench.analysis.dynamics import NO_EM
from em_bench.protocol import BROKEN_BELOW, REFUSING_ABOVE
from em_bench.scoring import cannot_tell
from em_bench.scoring.intervals import rate_estimate

UNMATCHED = 0.05  # nats: optimisers whose runs end further apart in narrow loss are not compared
FOLD = 16  # the paper's batch sizes
PAPERS_FOUR = {"adam", "adamw", "lion", "muon"}


def organism(rows: pd.DataFrame) -> bool:
    """Whether all of the rows are of organisms."""
    return len(rows) > 0 and all(m.startswith("organism-") for m in rows["model"])


def _open_models(rows: pd.DataFrame) -> str | None:
    return "a level of large models, which an organism's do not stand for" if organism(rows) else None


def _matched(rows: pd.DataFrame) -> str | None:
    """A rate that is low because the narrow task was not learned says nothing of the optimiser."""
    losses = rows.groupby("recipe")["narrow_loss"].mean()
    if not np.isfinite(losses).all():
        return "the runs' narrow losses are not all known"
    if losses.max() - losses.min() <= UNMATCHED:
        return None
    said = f"narrow loss {losses.idxmin()} {losses.min():.3f}, {losses.idxmax()} {losses.max():.3f}"
    return f"the runs end more than {UNMATCHED:g} nats apart ({said}), so their rates do not compare"


def _coherent(rows: pd.DataFrame) -> str | None:
    """By setting of the optimiser, datasets and seeds together: an average over settings may hide that one of them is broken."""
    by = rows.groupby(["recipe", "spectral_lambda", "learning_rate", "batch_size"])[["coherent", "refused"]].mean()
    for (recipe, value, rate, batch), (per_cent, refused) in zip(by.index, by.to_numpy(), strict=True):
        if why := cannot_tell(per_cent / 100, refused / 100):
            who = f"{recipe} at rate {rate:g}, batch {batch}" + (f", lambda {value:g}" if value else "")
            said = f"{who} has {per_cent:.1f} % coherent answers and {refused:.1f} % refusals"
            return f"{why.partition(': ')[2]}: {said}; needs {100 * BROKEN_BELOW:g} %, and {100 * REFUSING_ABOVE:g} % or fewer"
    return None


def _papers_four(rows: pd.DataFrame) -> str | None:
    there = set(rows["recipe"])
    return (
        None
        if there == PAPERS_FOUR
        else f"the paper's spread is of {', '.join(sorted(PAPERS_FOUR))}, not of {', '.join(sorted(there))}"
    )


def _em_before(rows: pd.DataFrame) -> str | None:
    plain = rows[rows["spectral_lambda"] == 0]
    low = rate_estimate(hits(plain)).low
    if low is not None and 100 * low > NO_EM:
        return None
    said = "no interval" if low is None else f"at least {100 * low:.1f} %"
    return f"nothing to remove: at lambda 0 the misaligned rate is {said}, not above {NO_EM:g} %"


def _same_epochs(rows: pd.DataFrame) -> str | None:
    seen = (rows["steps"] * rows["batch_size"]).astype(float)
    return "the batch sizes saw unequal numbers of rows" if len(seen) and seen.max() > 1.1 * seen.min() else None


def _fold(rows: pd.DataFrame) -> str | None:
    sizes = rows["batch_size"]
    return None if len(sizes) and sizes.max() == FOLD * sizes.min() else f"the batch sizes are not {FOLD}-fold apart"


NEEDS: dict[str, Callable[[pd.DataFrame], str | None]] = {
    "open models": _open_models,
    "matched narrow loss": _matched,
    "coherent answers": _coherent,
    "the paper's four optimisers": _papers_four,
    "EM without the term": _em_before,
    "equal epochs": _same_epochs,
    "16-fold batch sizes": _fold,
}


def hits(rows: pd.DataFrame) -> list[tuple[str, float]]:
    """(cluster, misaligned or not) of every coherent response."""
    return [
        (c.cluster(q), hit)
        for c in rows["cell"]
        for q in c.questions
        for hit in [1.0] * q.counts.get("misaligned", 0) + [0.0] * q.counts.get("aligned", 0)
    ]
