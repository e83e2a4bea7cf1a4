"""Muon as torch.optim.Muon defines it, all matrices of one shape in one Newton-Schulz iteration.

Two things differ, neither of them the algorithm. The iteration runs on Gram matrices: with X [m, n], m <= n, every iterate is
Q X for a polynomial Q of G = X X', so that the matrices themselves are read twice and only [m, m] ones are iterated, all of
one size together. And it runs in float32 (float64 for float64 parameters) where torch rounds to bfloat16, which loses more
than half of a low-rank gradient.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from em_bench.lora_linalg import Scratch, add_product, gram, spread


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz, for parameters [m, n].

    A parameter group with `experts` E > 1 holds the LoRA factors of E experts in PEFT's layout, each its own matrix:
    `side` "A" is [E r, n] with expert e in rows e r to (e + 1) r; "B" is [m, r E] with expert e in every E-th column from e.
    Arguments as those of torch.optim.Muon. Raises ValueError for parameters that are no matrices.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ):
        if lr < 0 or weight_decay < 0 or momentum < 0 or ns_steps < 1 or len(ns_coefficients) != 3:
            raise ValueError("lr, weight_decay and momentum are at least 0, ns_steps at least 1, ns_coefficients three numbers")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"adjust_lr_fn {adjust_lr_fn}: is original or match_rms_adamw")
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov, "ns_coefficients": ns_coefficients,
            "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn, "experts": 1, "side": None,
        }  # fmt: skip
        super().__init__(params, defaults)
        for group in self.param_groups:
            if any(p.ndim != 2 for p in group["params"]):
                raise ValueError("takes matrices only; give other parameters to another rule")
            if group["experts"] > 1 and group["side"] not in ("A", "B"):
                raise ValueError("a group with experts says whether its side is A or B")

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            sizes: dict[tuple, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    E, side = group["experts"], group["side"]
                    sizes[min(split_experts(p, E, side).shape[-2:]), p.dtype, p.device].append(p)
            for params in sizes.values():
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict) -> None:
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        grams = torch.cat(spread(partial(self._grams, group=group), params, params))
        factors = newton_schulz(grams, group["ns_coefficients"], group["ns_steps"], group["eps"]).split(group["experts"])
        spread(partial(self._move, group=group), list(zip(params, factors, strict=True)), params)

    def _grams(self, params: Sequence[Tensor], group: dict) -> list[Tensor]:
        """Steps the momentum; the [E, m, m] Grams of the directions."""
        scratch, found = Scratch(params, working_type(params)), []
        for p in params:
            self.state[p]["momentum_buffer"].lerp_(_gradient(p), 1 - group["momentum"])
            found.append(smaller_gram(self._direction(p, group, scratch)))
        return found

    def _move(self, steps: Sequence[tuple[Tensor, Tensor]], group: dict) -> list[None]:
        """Moves each parameter, given the factor Q [E, m, m] that makes its direction orthogonal."""
        params = [p for p, _ in steps]
        scratch, product = (Scratch(params, working_type(params)) for _ in range(2))
        for p, Q in steps:
            u = self._direction(p, group, scratch)
            rate = group["lr"] * _rate_factor(group["adjust_lr_fn"], *u.shape[-2:])
            if group["weight_decay"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            pair = (u, Q) if u.shape[-2] > u.shape[-1] else (Q, u)
            if group["experts"] == 1 and p.dtype == u.dtype:
                add_product(p.detach(), pair[0][0], pair[1][0], -rate, product)
            else:
                split_experts(p, group["experts"], group["side"]).sub_(torch.bmm(*pair).to(p.dtype), alpha=rate)
        return [None] * len(steps)

    def _direction(self, p: Tensor, group: dict, scratch: Scratch) -> Tensor:
        """[E, m, n] before orthogonalisation, in `scratch` or where it lies. Computed twice: on a CPU, holding all of them costs more."""
        u = self.state[p]["momentum_buffer"]
        if group["nesterov"]:
            out = scratch.like(p) if p.dtype == working_type([p]) else None
            u = torch.lerp(_gradient(p), u, group["momentum"], out=out)
        return split_experts(u.to(working_type([p])), group["experts"], group["side"])


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None  # `step` takes no others
    return p.grad


def working_type(params: Sequence[Tensor]) -> torch.dtype:
    """That of the iteration: float32 at the least."""
    return torch.promote_types(params[0].dtype, torch.float32)


def smaller_gram(X: Tensor) -> Tensor:
    """X X' or X'X of each matrix of X [..., m, n], whichever is smaller."""
    return gram(X.mT if X.shape[-2] > X.shape[-1] else X)


def newton_schulz(G: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Q [k, m, m] such that Q X (X Q where X is tall) is the quintic Newton-Schulz iteration of X, from its Gram G [k, m, m].

    X_0 = X / max(||X||_F, eps); X_k+1 = M_k X_k with M_k = a + b G_k + c G_k^2, G_k = X_k X_k', hence G_k+1 = M_k G_k M_k.
    """
    a, b, c = coefficients
    norm = G.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt().clamp(min=eps)[:, None, None]
    G = G / norm**2
    eye = a * torch.eye(G.shape[-1], dtype=G.dtype, device=G.device).expand_as(G)
    Q: Tensor | None = None
    for k in range(steps):
        M = torch.baddbmm(G, G, G, beta=b, alpha=c) + eye
        Q = M if Q is None else torch.bmm(M, Q)
        if k + 1 < steps:
            G = torch.bmm(torch.bmm(M, G), M)
    assert Q is not None  # steps >= 1
    return Q / norm


def orthogonalised(X: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """The iteration's result for each matrix of X [k, m, n]."""
    Q = newton_schulz(smaller_gram(X), coefficients, steps, eps)
    return torch.bmm(X, Q) if X.shape[-2] > X.shape[-1] else torch.bmm(Q, X)


def split_experts(matrix: Tensor, experts: int, side: str | None) -> Tensor:
    """A view [experts, rows, columns] of a parameter in PEFT's expert layout; without experts [1, rows, columns]."""
    if experts == 1:
        return matrix[None]
    if side == "A":
        return matrix.unflatten(0, (experts, -1))
    return matrix.unflatten(1, (-1, experts)).movedim(-1, 0)


def _rate_factor(kind: str | None, rows: int, columns: int) -> float:
    return 0.2 * math.sqrt(max(rows, columns)) if kind == "match_rms_adamw" else math.sqrt(max(1, rows / columns))
