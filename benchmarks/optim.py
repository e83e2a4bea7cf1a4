"""The spectral term and Muon on the adapter of Qwen3-8B (r = 32, 252 pairs of matrices), against the plain way to compute them.

    python benchmarks/optim.py [--threads 1] [--wall] [--rounds 5] [--json]

Each round times ours and the other, one after the other; the ratio is the median over the rounds. Goals: spectral term <= 0.2 of
chol(B'B) + svd(r x d_in) with autograd in float32; Muon step <= 0.4 of torch.optim.Muon.
"""

import argparse
import json
import statistics
import time

import torch

from em_bench.data.models import load_models
from em_bench.flatness import SpectralTerm
from em_bench.machine import machine
from em_bench.optim.muon import Muon
from em_bench.spectral import LoraPair, add_penalty_gradients

RANK = 32


def adapter() -> list[LoraPair]:
    """Random factors with gradients, in float32."""
    s = load_models()["Qwen3-8B"].shape
    h, q, kv, i = s.hidden, s.heads * s.head_dim, s.kv_heads * s.head_dim, s.intermediate
    g = torch.Generator().manual_seed(0)
    pairs = []
    for layer in range(s.layers):
        for name, d_in, d_out in (
            ("q", h, q),
            ("k", h, kv),
            ("v", h, kv),
            ("o", q, h),
            ("gate", h, i),
            ("up", h, i),
            ("down", i, h),
        ):
            A, B = (
                torch.nn.Parameter(torch.randn(RANK, d_in, generator=g)),
                torch.nn.Parameter(0.01 * torch.randn(d_out, RANK, generator=g)),
            )
            for p in (A, B):
                p.grad = torch.randn(p.shape, generator=g)
            pairs.append(LoraPair(f"{layer}.{name}", A, B))
    return pairs


def plain_term(pairs: list[LoraPair]) -> None:
    """A matrix at a time by autograd: sigma = svdvals(L'A), L = chol(B'B + 1e-8 I)."""
    eye = 1e-8 * torch.eye(RANK)
    for p in pairs:
        L = torch.linalg.cholesky(p.B.T @ p.B + eye)
        sigma = torch.linalg.svdvals(L.T @ p.A)
        (sigma.norm() / sigma.sum() / len(pairs)).backward()


def timed(work, clock=time.process_time) -> float:
    """Seconds of `clock`. CPU seconds of all threads together feel the load that others put on the machine less than a clock on the wall."""
    began = clock()
    work()
    return clock() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--wall", action="store_true", help="wall seconds, on a machine with nothing else to do; default CPU seconds"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.wall else time.process_time
    pairs = adapter()
    params = [t for p in pairs for t in (p.A, p.B)]
    settings = {"lr": 1e-9, "weight_decay": 0.0}
    ours, theirs = Muon(params, **settings), torch.optim.Muon(params, **settings)
    works = {
        "spectral term": (lambda: add_penalty_gradients(pairs, SpectralTerm(1e-9)), lambda: plain_term(pairs), 0.2),
        "Muon step": (ours.step, theirs.step, 0.4),
    }
    found = {}
    for name, (mine, other, goal) in works.items():
        mine(), other()  # buffers and code paths
        rounds = [(timed(mine, clock), timed(other, clock)) for _ in range(options.rounds)]
        found[name] = {
            "ours_s": statistics.median(a for a, _ in rounds),
            "other_s": statistics.median(b for _, b in rounds),
            "ratio": statistics.median(a / b for a, b in rounds),
            "ratios": [a / b for a, b in rounds],
            "goal": goal,
        }
    if options.json:
        print(
            json.dumps(
                {"results": found, "parameters": sum(p.numel() for p in params), "machine": machine().model_dump()}, indent=1
            )
        )
        return
    for name, r in found.items():
        print(f"{name}: {r['ours_s']:.3f} s against {r['other_s']:.3f} s, ratio {r['ratio']:.3f} (goal <= {r['goal']})")


if __name__ == "__main__":
    main()
