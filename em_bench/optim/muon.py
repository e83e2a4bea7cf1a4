"""Muon as torch.optim.Muon defines it, all matrices of one shape in one Newton-Schulz iteration.

Two things differ, neither of them the algorithm. The iteration runs on Gram matrices: with X [m, n], m <= n, every iterate is
Q X for a polynomial Q of G = X X', so that the matrices themselves are read twice and only [m, m] ones are iterated, all of
one size together. And it runs in float32 (float64 for float64 parameters) where torch rounds to bfloat16, which loses more
than half of a low-rank gradient.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from em_bench.products import Scratch, add_product, gram, openblas_on_one_thread


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
    @openblas_on_one_thread()
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
        E, side, momentum, nesterov = group["experts"], group["side"], group["momentum"], group["nesterov"]
        kind = torch.promote_types(params[0].dtype, torch.float32)
        scratch, product = Scratch(params, kind), Scratch(params, kind)

        def direction(p: Tensor) -> Tensor:
            """[E, m, n] before orthogonalisation, until asked for the next. Computed twice: on a CPU, holding all of them costs more."""
            buffer = self.state[p]["momentum_buffer"]
            if nesterov and p.dtype == kind:
                u = torch.lerp(p.grad, buffer, momentum, out=scratch.like(p))
            else:
                u = (torch.lerp(p.grad, buffer, momentum) if nesterov else buffer).to(kind)
            return split_experts(u, E, side)

        grams = []
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            self.state[p]["momentum_buffer"].lerp_(p.grad, 1 - momentum)
            grams.append(smaller_gram(direction(p)))
        factors = newton_schulz(torch.cat(grams), group["ns_coefficients"], group["ns_steps"], group["eps"]).split(E)
        for p, Q in zip(params, factors, strict=True):
            u = direction(p)
            rate = group["lr"] * _rate_factor(group["adjust_lr_fn"], *u.shape[-2:])
            if group["weight_decay"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            pair = (u, Q) if u.shape[-2] > u.shape[-1] else (Q, u)
            if E == 1 and p.dtype == u.dtype:
                add_product(p.detach(), pair[0][0], pair[1][0], -rate, product)
            else:
                split_experts(p, E, side).sub_(torch.bmm(*pair).to(p.dtype), alpha=rate)


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
    Q = None
    for k in range(steps):
        M = torch.baddbmm(G, G, G, beta=b, alpha=c) + eye
        Q = M if Q is None else torch.bmm(M, Q)
        if k + 1 < steps:
            G = torch.bmm(torch.bmm(M, G), M)
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
