"""Ranks and tie groups: entries whose difference is not significant share a rank."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from em_bench.board.bootstrap import Replicates


class Place(NamedTuple):
    """Where an entry stands. `p_leader`: Holm-adjusted p of its difference from the first of its group (1 for itself)."""

    rank: int
    tied: int
    p_leader: float


def places(drawn: Mapping[str, Replicates], alpha: float = 0.05) -> dict[str, Place]:
    """Places of entries, lowest rate first.

    Every pair is compared by the paired difference of its replicates (two-sided t), and the p values of all pairs are
    corrected together after Holm. From the lowest rate on, a group is its first entry and all that follow it without a
    significant difference from that first one; all of a group share the rank of its first.
    """
    names = sorted(drawn, key=lambda n: (drawn[n].value, n))
    adjusted = _holm(_pairwise([drawn[n] for n in names]))
    out: dict[str, Place] = {}
    start = 0
    while start < len(names):
        end = start + 1
        while end < len(names) and adjusted[start, end] >= alpha:
            end += 1
        for i in range(start, end):
            out[names[i]] = Place(start + 1, end - start, float(adjusted[start, i]))
        start = end
    return out


def _pairwise(drawn: list[Replicates]) -> np.ndarray:
    """p values of all pairs, [n, n], without correction; 1 on the diagonal."""
    from scipy.special import stdtr

    if not drawn:
        return np.ones((0, 0))
    values = np.array([d.value for d in drawn])
    degrees = np.array([d.degrees for d in drawn])
    centred = np.stack([d.replicates - d.replicates.mean() for d in drawn])
    covariance = centred @ centred.T / (centred.shape[1] - 1)
    own = np.diag(covariance)
    variance = np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0.0)
    difference = np.abs(values[:, None] - values[None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(difference > 0, difference / np.sqrt(variance), 0.0)
    p = 2 * stdtr(np.minimum(degrees[:, None], degrees[None, :]), -t)
    np.fill_diagonal(p, 1.0)
    return p


def _holm(p: np.ndarray) -> np.ndarray:
    """The p values of all pairs, corrected together."""
    from statsmodels.stats.multitest import multipletests

    upper = np.triu_indices(len(p), 1)
    out = np.ones_like(p)
    if len(upper[0]):
        out[upper] = multipletests(p[upper], method="holm")[1]
        out[upper[1], upper[0]] = out[upper]
    return out
