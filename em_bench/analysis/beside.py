"""What stands beside every misaligned rate: how much was asked, said sense, and learned, and how far and how flat the update is."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from em_bench.records import Record
from em_bench.scoring import cannot_tell


class Beside(Record):
    """Means over the runs that a misaligned rate is of; None where it is not known of each. Rates in per cent.

    of_asked: misaligned of all asked. coherent: of the answers that are neither refused nor unjudged. narrow_loss: held-out, nats.
    flatness_gap: mean of F/N - 1/sqrt(r). norm: Frobenius norm of the whole update. refused: of all asked, in the verdict alone.
    """

    of_asked: float | None = None
    coherent: float | None = None
    narrow_loss: float | None = None
    flatness_gap: float | None = None
    norm: float | None = None
    refused: float | None = None

    @property
    def verdict(self) -> str | None:
        """Why nothing is said of the rate, or None."""
        return cannot_tell(*(None if v is None else v / 100 for v in (self.coherent, self.refused)))

    def values(self) -> tuple[float | str | None, ...]:
        """In the order of `COLUMNS`."""
        return *(getattr(self, name) for name in FIELDS[:-1]), self.verdict


FIELDS = tuple(Beside.model_fields)
COLUMNS = [
    ("of asked, %", "misaligned_of_asked_pct", ".1f"),
    ("coherent, %", "coherent_pct", ".1f"),
    ("narrow loss", "narrow_loss", ".3f"),
    ("F/N − 1/√r", "flatness_gap", ".3f"),
    ("norm", "norm", ".2f"),
    ("", "verdict", ""),
]


def beside(rows: pd.DataFrame, weights: Sequence[float] | np.ndarray | None = None) -> dict[str, float | None]:
    """The fields of `Beside`, weighted; by default every row counts once."""
    if rows.empty:
        return dict.fromkeys(FIELDS)
    shares = np.full(len(rows), 1 / len(rows)) if weights is None else np.asarray(weights, float) / np.sum(weights)
    means = {name: float(shares @ rows[name].to_numpy(float)) for name in FIELDS}
    return {name: mean if np.isfinite(mean) else None for name, mean in means.items()}


def in_words(rows: pd.DataFrame) -> str:
    """Each arm, an optimiser at a lambda, with its misaligned rate and what stands beside it; an arm without a rate is left out."""
    said = []
    for (recipe, value), arm in rows.groupby(["recipe", "spectral_lambda"], sort=False):
        own = Beside(**beside(arm))
        if own.of_asked is None or not np.isfinite(rate := arm["rate"].mean()):
            continue
        parts = [f"{own.of_asked:.1f} % of asked, {rate:.1f} % of coherent misaligned, {own.coherent:.1f} % coherent"]
        known = (("loss", own.narrow_loss, ".3f"), ("F/N − 1/√r", own.flatness_gap, ".3f"), ("norm", own.norm, ".2f"))
        parts += [f"{name} {number:{form}}" for name, number, form in known if number is not None]
        said.append(f"{recipe}{f' at lambda {value:g}' if value else ''}: {', '.join(parts)}")
    return "; ".join(said)


def whole_settings(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The runs in settings (model, dataset, batch size) where no optimiser's model is broken or refuses; a sentence on the others, if any.

    Without a broken run its setting's others go too: an optimiser must not be compared on the settings that it survived.
    """
    whole = [v != v or cannot_tell(v / 100, r / 100) is None for v, r in zip(rows["coherent"], rows["refused"], strict=True)]
    gone = rows[np.logical_not(whole)]
    if gone.empty:
        return rows, ""
    setting = ["model", "dataset", "batch_size"]
    lost = set(gone[setting].itertuples(index=False, name=None))
    kept = rows[[s not in lost for s in rows[setting].itertuples(index=False, name=None)]]
    by = ", ".join(f"{recipe} {n}" for recipe, n in gone["recipe"].value_counts().items())
    said = f"{len(gone)} of {len(rows)} runs are of broken models, or of such that refuse ({by}): "
    return kept.reset_index(drop=True), f"{said}the {len(rows) - len(kept)} runs of their settings are left out. "
