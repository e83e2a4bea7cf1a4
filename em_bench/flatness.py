"""Measures of how far a layer's singular values are from flat, of which the spectral term is made: each is an entry of MEASURES."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from em_bench.did_you_mean import unknown
from em_bench.protocol import FLATNESS

if TYPE_CHECKING:
    from torch import Tensor


class Spectrum(NamedTuple):
    """k updates BA of rank r in float64: GA = AA', GB = B'B + a ridge, [k, r, r]; s [k, r] their singular values, ascending.

    LV and U, [k, r, r], are LA V and LA^-T V, with LA = chol(GA) and V the eigenvectors of LA' GB LA.
    """

    GA: "Tensor"
    GB: "Tensor"
    s: "Tensor"
    LV: "Tensor"
    U: "Tensor"


class Products(NamedTuple):
    """A measure [k] of k updates, and what makes its gradients, [k, r, r]: CA A is that of A, B CB that of B."""

    gap: "Tensor"
    CA: "Tensor"
    CB: "Tensor"


class Measure(NamedTuple):
    """`gap`: singular values [..., r] to [...], differentiable and free of scale, 0 where they are equal and more where they are not.

    `products`: a closed form of value and gradients, where there is one; otherwise `gap` is differentiated.
    """

    about: str
    gap: Callable[["Tensor"], "Tensor"]
    products: Callable[[Spectrum], Products] | None = None


def _frobenius_nuclear(s: "Tensor") -> "Tensor":
    return s.square().sum(-1).sqrt() / s.sum(-1) - 1 / math.sqrt(s.shape[-1])


def _frobenius_nuclear_products(of: Spectrum) -> Products:
    """With N = sum s, F = sqrt(sum s^2), f = F / N: CA = (GB / F - f U s U') / N and CB = (GA / F - f LV s^-1 LV') / N."""
    s = of.s
    N, F = s.sum(-1)[:, None, None], s.square().sum(-1).sqrt()[:, None, None]
    f = F / N
    KB = (of.LV / s[:, None, :]) @ of.LV.mT
    KA = (of.U * s[:, None, :]) @ of.U.mT
    gap = f.flatten() - 1 / math.sqrt(s.shape[-1])
    return Products(gap, (of.GB / (F * N)).addcmul(KA, -f / N), (of.GA / (F * N)).addcmul(KB, -f / N))


MEASURES = {
    FLATNESS: Measure("Frobenius over nuclear norm, less 1/sqrt(r)", _frobenius_nuclear, _frobenius_nuclear_products),
}


class SpectralTerm(NamedTuple):
    """What is added to the loss: weight x mean over layers with an update of the measure."""

    weight: float
    flatness: str = FLATNESS

    @property
    def measure(self) -> Measure:
        """Raises UserError where there is none of that name."""
        return measure(self.flatness)


def measure(name: str) -> Measure:
    """A measure by its name. Raises UserError where there is none."""
    if name not in MEASURES:
        raise unknown("measure of flatness", name, MEASURES)
    return MEASURES[name]
