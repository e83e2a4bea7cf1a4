"""Singular values of a LoRA update BA without forming it, and the loss term that flattens them (docs/protocol.md, 3).

Every quantity here but the norm is free of scale, so the LoRA factor alpha / sqrt(r) cancels.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch

from em_bench.adapter_file import EXPERT
from em_bench.errors import UserError
from em_bench.flatness import Measure, Products, SpectralTerm, Spectrum
from em_bench.lora_linalg import Scratch, add_product, gram, spread
from em_bench.protocol import FLATNESS
from em_bench.records import SpectralSummary

ZERO_B = 1e-12  # provenance: S. A layer whose ||B||_F lies below has no update yet
ZERO_UPDATE = 1e-24  # of ||BA||_F^2: below it the gradient of the term is noise that Adam and Lion would blow up
RIDGE = 1e-8  # provenance: S. Added to B'B in the regulariser


class LoraPair(NamedTuple):
    """One adapted matrix, A [r, d_in] and B [d_out, r]; or those of E experts in PEFT's layout, A [E r, d_in], B [d_out, r E].

    Expert e has rows e r to (e + 1) r of A and every E-th column of B from e. Each expert counts as a layer. The update is scale B A.
    """

    name: str
    A: torch.Tensor
    B: torch.Tensor
    experts: int = 1
    scale: float | None = None  # None: not known

    @property
    def rank(self) -> int:
        """r."""
        return self.A.shape[0] // self.experts

    def split(self, A: torch.Tensor, B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of tensors shaped as A and B, by expert: [E, r, d_in] and [E, d_out, r]."""
        E, r = self.experts, self.rank
        return A.unflatten(-2, (E, r)), B.unflatten(-1, (r, E)).movedim(-1, -3)

    def layers(self) -> list["LoraPair"]:
        """One pair an expert."""
        if self.experts == 1:
            return [self]
        both = zip(*self.split(self.A, self.B), strict=True)
        return [LoraPair(f"{self.name}.{e}", A, B, scale=self.scale) for e, (A, B) in enumerate(both)]


class LayerSpectrum(NamedTuple):
    """The quantities of one layer; sigma is [r], descending, of B A. norm: ||scale B A||_F, None where the scale is not known."""

    name: str
    sigma: torch.Tensor
    stable_rank: float
    entropy: float
    effective_rank: float
    condition_number: float
    frobenius_nuclear: float
    flatness_gap: float
    norm: float | None


def lora_pairs(
    named: Mapping[str, torch.Tensor], experts: Mapping[str, int] | None = None, scale: float | None = None
) -> list[LoraPair]:
    """The (A, B) pairs among named tensors: names of live PEFT parameters or of an adapter file.

    `experts` says how many experts' factors a tensor holds, by name, and `scale` what B A is multiplied by in every layer; what
    `load_adapter` returns knows both.
    Raises UserError for an A without its B, or shapes that do not fit.
    """
    experts = getattr(named, "experts", None) if experts is None else experts
    if experts is None and any(EXPERT.search(n) for n in named):
        raise UserError("adapter: holds experts, whose number only adapter_config.json knows; read its folder with load_adapter")
    experts = experts or {}
    scales = getattr(named, "scales", None) or {}
    pairs = []
    for name, A in named.items():
        if ".lora_A." not in name:
            continue
        twin = name.replace(".lora_A.", ".lora_B.")
        if twin not in named:
            raise UserError(f"{name}: has no lora_B beside it; the adapter is incomplete")
        B, E = named[twin], experts.get(name, 1)
        if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1] or A.shape[0] % E:
            raise UserError(f"{name}: shapes {tuple(A.shape)} and {tuple(B.shape)} are no LoRA pair [r, d_in], [d_out, r]")
        own = scales.get(name) if scale is None else scale
        pairs.append(LoraPair(name.split(".lora_A.")[0].removeprefix("base_model.model."), A, B, E, own))
    return pairs


def singular_values(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Singular values of B @ A, descending, [..., min(r, d_in, d_out)], in float64; leading dimensions are a batch.

    QR of both factors leaves an r x r core with the same singular values; unlike a Cholesky factor of B'B it loses
    nothing on graded or rank-deficient factors.
    """
    A, B = A.detach().double(), B.detach().double()
    core = torch.linalg.qr(B, mode="r").R @ torch.linalg.qr(A.mT, mode="r").R.mT
    return torch.linalg.svdvals(core)


def layer_spectra(pairs: Iterable[LoraPair]) -> list[LayerSpectrum]:
    """All quantities of each layer (of each expert) that has an update; a pair's experts are taken together."""
    return [spectrum for pair in pairs for spectrum in _spectra(pair)]


def _spectra(pair: LoraPair) -> list[LayerSpectrum]:
    A, B = pair.split(pair.A, pair.B)
    names = [pair.name] if pair.experts == 1 else [f"{pair.name}.{e}" for e in range(pair.experts)]
    moved = (torch.linalg.matrix_norm(B.detach().double()) >= ZERO_B).nonzero().flatten()
    if not len(moved):
        return []
    sigma = singular_values(A[moved], B[moved]).cpu()
    kept = sigma[:, 0] > 0
    sigma, names = sigma[kept], [names[i] for i, k in zip(moved.tolist(), kept.tolist(), strict=True) if k]
    largest, smallest, total = sigma[:, 0], sigma[:, -1], sigma.sum(-1)
    p = sigma / total[:, None]
    entropy = -torch.special.xlogy(p, p).sum(-1)
    ratio = torch.linalg.vector_norm(sigma, dim=-1) / total
    columns = (
        sigma.square().sum(-1) / largest.square(),
        entropy,
        entropy.exp(),
        largest / torch.maximum(smallest, largest * torch.finfo(torch.float64).eps),
        ratio,
        ratio - 1 / math.sqrt(pair.rank),
    )
    norms = [None] * len(names) if pair.scale is None else (abs(pair.scale) * torch.linalg.vector_norm(sigma, dim=-1)).tolist()
    return [
        LayerSpectrum(name, s, *numbers)
        for name, s, *numbers in zip(names, sigma, *(c.tolist() for c in columns), norms, strict=True)
    ]


def spectrum_summary(pairs: Iterable[LoraPair]) -> SpectralSummary | None:
    """Means over the layers with an update, and its norm; None where there is none (LoRA starts at B = 0)."""
    return mean_of(layer_spectra(pairs))


def mean_of(spectra: Sequence[LayerSpectrum]) -> SpectralSummary | None:
    """Means over layers, and the norm of their update; None over none."""
    if not spectra:
        return None

    def mean(field: str) -> float:
        return sum(getattr(s, field) for s in spectra) / len(spectra)

    return SpectralSummary(
        layers=len(spectra),
        stable_rank=mean("stable_rank"),
        entropy=mean("entropy"),
        condition_number=mean("condition_number"),
        frobenius_nuclear=mean("frobenius_nuclear"),
        flatness_gap=mean("flatness_gap"),
        norm=norm_of(spectra),
    )


def norm_of(spectra: Sequence[LayerSpectrum]) -> float | None:
    """Frobenius norm of the update of several layers together, 0 for none; None where the scale of one is not known."""
    norms = [s.norm for s in spectra if s.norm is not None]
    return math.hypot(*norms) if len(norms) == len(spectra) else None


@torch.no_grad()
def add_penalty_gradients(pairs: Sequence[LoraPair], term: SpectralTerm) -> float:
    """Add the gradient of the term to every `.grad`; returns the term before its weight. At weight 0 no `.grad` is touched.

    In float64, one eigendecomposition for all layers of one rank. With GA = AA', GB = B'B + 1e-8 I, LA = chol(GA),
    eigh(LA' GB LA) = (w, V) and s = sqrt(w), the singular values, a measure f of s has
    d f / dA = U diag(s df/ds) U' A with U = LA^-T V and d f / dB = B LA V diag(df/ds / s) (LA V)'.
    """
    groups: dict[tuple, list[LoraPair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.rank, pair.experts, pair.A.device].append(pair)
    measure = term.measure
    parts = [(group, part) for group in groups.values() if (part := _group(group, measure)) is not None]
    layers = sum(part.layers for _, part in parts)
    if term.weight:
        for group, part in parts:
            products = [(p, CA, CB) for p, CA, CB, moved in zip(group, part.CA, part.CB, part.moved, strict=True) if moved]
            spread(partial(_add_products, weight=term.weight / layers), products, _factors(group))
    return sum(part.gap for _, part in parts) / layers if layers else 0.0


def spectral_penalty(pairs: Sequence[LoraPair], flatness: str = FLATNESS) -> torch.Tensor:
    """The term before its weight, a scalar that can be differentiated by the factors: `loss + weight * spectral_penalty(pairs)`.

    pairs: as of `lora_pairs`. flatness: an entry of `em_bench.flatness.MEASURES`. Value and gradient are those of
    `add_penalty_gradients`; 0 where no layer has an update yet. Raises UserError for an unknown measure, and without pairs.
    """
    if not pairs:
        raise UserError("spectral_penalty: no LoRA factors; give the pairs of a model with an adapter")
    return _Penalty.apply(pairs, SpectralTerm(1.0, flatness), *_factors(pairs))


class _Penalty(torch.autograd.Function):
    """Both are computed at once, as the closed form gives them."""

    @staticmethod
    def forward(ctx, pairs, term, *factors):
        apart = [p._replace(A=p.A.detach(), B=p.B.detach()) for p in pairs]  # the same numbers with gradients of their own
        value = add_penalty_gradients(apart, term)
        grads = [t.grad for t in _factors(apart)]
        ctx.save_for_backward(*(torch.zeros_like(f) if g is None else g for f, g in zip(factors, grads, strict=True)))
        return factors[0].new_tensor(value)

    @staticmethod
    def backward(ctx, *upstream):
        (slope,) = upstream
        return None, None, *(slope * g for g in ctx.saved_tensors)


class _Part(NamedTuple):
    gap: float
    layers: int
    moved: list[bool]  # by pair: whether any of its experts has an update
    CA: torch.Tensor  # [k, E, r, r]: the gradient of A is CA A
    CB: torch.Tensor  # that of B is B CB


def _group(pairs: list[LoraPair], measure: Measure) -> _Part | None:
    """Summed gap and the gradients' [r, r] factors of k pairs of one rank; zero for layers without an update, None if all are.

    Only Gram matrices are stacked: the factors themselves are read where they lie.
    """
    GA, GB = (torch.cat(g) for g in zip(*spread(_grams, pairs, _factors(pairs)), strict=True))
    moved = (GA * GB).sum((-2, -1)) > ZERO_UPDATE
    kept = moved.nonzero().flatten()
    if not len(kept):
        return None
    shape = GA.shape
    GA, GB = GA[kept], GB[kept]
    r = shape[-1]
    eye = torch.eye(r, dtype=torch.float64, device=GA.device)
    GB = GB + RIDGE * eye
    # A is Kaiming-random and never near-singular in practice; the relative ridge only keeps the factor of an adapter
    # with r > d_in or dead rows from failing.
    LA = torch.linalg.cholesky(GA + 1e-12 * GA.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * eye)
    w, V = torch.linalg.eigh(LA.mT @ GB @ LA)
    s = w.clamp_min(1e-30).sqrt()
    found = (measure.products or partial(_products, measure))(
        Spectrum(GA, GB, s, LA @ V, torch.linalg.solve_triangular(LA.mT, V, upper=True))
    )
    CA, CB = torch.zeros(2, *shape, dtype=torch.float64, device=GA.device)
    CA[kept], CB[kept] = found.CA, found.CB
    gap = float(found.gap.sum())
    k = len(pairs)
    by_pair = moved.unflatten(0, (k, -1)).any(-1).tolist()
    return _Part(gap, len(kept), by_pair, CA.unflatten(0, (k, -1)), CB.unflatten(0, (k, -1)))


def _products(measure: Measure, of: Spectrum) -> Products:
    """From the derivative of the measure."""
    with torch.enable_grad():
        s = of.s.requires_grad_()
        gap = measure.gap(s)
        (slope,) = torch.autograd.grad(gap.sum(), s)
    s = s.detach()
    CA, CB = (of.U * (slope * s)[:, None, :]) @ of.U.mT, (of.LV * (slope / s)[:, None, :]) @ of.LV.mT
    return Products(gap.detach(), CA, CB)


def _factors(pairs: Sequence[LoraPair]) -> list[torch.Tensor]:
    return [t for p in pairs for t in (p.A, p.B)]


def _grams(pairs: Sequence[LoraPair]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """AA' and B'B [E, r, r] of each pair, in float64."""
    scratch = Scratch(_factors(pairs), torch.float64)

    def one(X: torch.Tensor) -> torch.Tensor:
        return gram(scratch.like(X).copy_(X))

    return [(one(A), one(B.mT)) for A, B in (p.split(p.A, p.B) for p in pairs)]


def _gradient(p: torch.Tensor) -> torch.Tensor:
    """That of a parameter, zeros where it has none yet."""
    if p.grad is None:
        p.grad = torch.zeros_like(p)
    return p.grad


def _add_products(products: Sequence[tuple[LoraPair, torch.Tensor, torch.Tensor]], weight: float) -> list[None]:
    """Add `weight` times CA A and B CB to the gradients of each pair, in the parameters' own precision."""
    scratch = Scratch(_factors([p for p, _, _ in products]), products[0][0].A.dtype)
    for pair, CA, CB in products:
        gA, gB = _gradient(pair.A), _gradient(pair.B)
        dtype = pair.A.dtype
        CA, CB, A, B = CA.to(dtype), CB.to(dtype), pair.A.detach(), pair.B.detach()
        if pair.experts == 1:
            add_product(gA, CA[0], A, weight, scratch)
            add_product(gB, B, CB[0], weight, scratch)
        else:
            A, B = pair.split(A, B)
            gA, gB = pair.split(gA, gB)  # views
            gA.add_(CA @ A, alpha=weight)
            gB.add_(B @ CB, alpha=weight)
    return [None] * len(products)
