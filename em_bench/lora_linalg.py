"""X X' and Y += a L R for LoRA factors, matrices of some tens of rows: on a CPU by OpenBLAS and many at a time, elsewhere by torch.

torch's own BLAS for CPUs computes all of a symmetric product where half is enough, and fewer numbers a second on processors that are
not its maker's; and such matrices are too small to be divided among threads. `benchmarks/optim.py` measures what this is worth.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from scipy.linalg.blas import dgemm, sgemm
from threadpoolctl import ThreadpoolController
from torch import Tensor

_GEMM = {torch.float32: sgemm, torch.float64: dgemm}
SHARE = 2**20  # numbers a thread at the least: starting one costs as much as some 100,000
_POOLS = ThreadpoolController()  # after the imports above: it knows the libraries that are loaded by now
_ONE_AT_A_TIME = Lock()  # numbers of threads belong to the process: two callers would restore each other's
T = TypeVar("T")
R = TypeVar("R")


def spread(work: Callable[[Sequence[T]], list[R]], items: Sequence[T], tensors: Sequence[Tensor]) -> list[R]:
    """work(items), a result an item, without gradients. `tensors` are what it works on.

    On a CPU in as many threads as torch has, each with a share of the items, if the tensors are large enough. Inside a share torch and
    OpenBLAS have one thread each: their own threads, in turn on the same cores, wait for each other.
    """
    share = torch.no_grad()(work)
    if tensors[0].device.type != "cpu":
        return share(items)
    with _ONE_AT_A_TIME, _POOLS.limit(limits=1, user_api="blas"):
        threads = torch.get_num_threads()
        shares = max(1, min(threads, len(items), sum(t.numel() for t in tensors) // SHARE))
        if shares == 1:
            return share(items)
        torch.set_num_threads(1)  # new threads take over this number
        try:
            with ThreadPoolExecutor(shares) as pool:
                found = list(pool.map(share, (items[i::shares] for i in range(shares))))
        finally:
            torch.set_num_threads(threads)
    return [found[i % shares][i // shares] for i in range(len(items))]


class Scratch:
    """Room for one tensor at a time, used again and again: on a CPU, new memory costs more than the arithmetic done in it."""

    def __init__(self, tensors: Iterable[Tensor], dtype: torch.dtype):
        largest = max(tensors, key=Tensor.numel)
        self._room = torch.empty(largest.numel(), dtype=dtype, device=largest.device)

    def like(self, X: Tensor) -> Tensor:
        """Room of the shape and strides of X, holding anything; what was asked for before is lost."""
        return self._room.as_strided(X.shape, X.stride())


def gram(X: Tensor) -> Tensor:
    """X X' [..., m, m] of X [..., m, n]."""
    if not _for_openblas(X):
        return X @ X.mT
    Y = X.detach().numpy()
    return torch.from_numpy(np.matmul(Y, Y.swapaxes(-1, -2)))  # numpy sees that both are one and asks for half


def add_product(out: Tensor, left: Tensor, right: Tensor, alpha: float, scratch: Scratch) -> None:
    """out [m, n] += alpha left [m, k] right [k, n], in place; `scratch` has room for `out` in its type."""
    if not _for_openblas(out) or not all(t.is_contiguous() for t in (out, left, right)):
        out.addmm_(left, right, alpha=alpha)
    elif out.shape[0] < out.shape[1]:  # long rows lie far apart, which is slow to add to and fast to write
        product = scratch.like(out)
        np.matmul(left.numpy(), right.numpy(), out=product.numpy())
        out.add_(product, alpha=alpha)
    else:  # Fortran's order of a matrix is C's of its transpose: out' += alpha right' left'
        _GEMM[out.dtype](alpha, right.numpy().T, left.numpy().T, 1.0, out.numpy().T, overwrite_c=True)


def _for_openblas(X: Tensor) -> bool:
    return X.device.type == "cpu" and X.dtype in _GEMM
