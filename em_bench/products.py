"""X X' and Y += a L R for LoRA factors, matrices of some tens of rows: on a CPU by OpenBLAS where it is the faster, elsewhere by torch.

torch's own BLAS for CPUs computes all of a symmetric product where half is enough, and fewer numbers a second on processors that are
not its maker's. OpenBLAS is kept to one thread a call: its threads and torch's, in turn on the same cores, wait for each
other. `benchmarks/optim.py` measures what this is worth.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from scipy.linalg.blas import dgemm, sgemm
from threadpoolctl import ThreadpoolController
from torch import Tensor

_GEMM = {torch.float32: sgemm, torch.float64: dgemm}
_POOLS = ThreadpoolController()  # after the imports above: it knows the libraries that are loaded by now


@contextmanager
def openblas_on_one_thread() -> Iterator[None]:
    """To be entered around many calls of what follows: entering costs more than one of them."""
    with _POOLS.limit(limits=1, user_api="blas"):
        yield


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
    return _half_gram(X) if _openblas_is_faster(X) else X @ X.mT


def grams_in_float64(matrices: Sequence[Tensor]) -> list[Tensor]:
    """X X' [..., m, m] of each X [..., m, n]; on a CPU on as many threads as torch has, each with matrices of its own."""
    if matrices[0].device.type != "cpu":
        return [gram(X.double()) for X in matrices]

    def work(part: Sequence[Tensor]) -> list[Tensor]:
        scratch, found = Scratch(part, torch.float64), []
        for X in part:
            Y = scratch.like(X)
            np.copyto(Y.numpy(), (X if X.dtype in _GEMM else X.float()).numpy())  # torch would start threads of its own here
            found.append(_half_gram(Y))
        return found

    n = min(torch.get_num_threads(), len(matrices))
    if n == 1:
        return work(matrices)
    with ThreadPoolExecutor(n) as pool:
        parts = list(pool.map(work, (matrices[i::n] for i in range(n))))
    return [parts[i % n][i // n] for i in range(len(matrices))]


def add_product(out: Tensor, left: Tensor, right: Tensor, alpha: float, scratch: Scratch) -> None:
    """out [m, n] += alpha left [m, k] right [k, n], in place; `scratch` has room for `out` in its type."""
    if not _openblas_is_faster(out) or not all(t.is_contiguous() for t in (out, left, right)):
        out.addmm_(left, right, alpha=alpha)
    elif out.shape[0] < out.shape[1]:  # long rows lie far apart, which is slow to add to and fast to write
        product = scratch.like(out)
        np.matmul(left.numpy(), right.numpy(), out=product.numpy())
        out.add_(product, alpha=alpha)
    else:  # Fortran's order of a matrix is C's of its transpose: out' += alpha right' left'
        _GEMM[out.dtype](alpha, right.numpy().T, left.numpy().T, 1.0, out.numpy().T, overwrite_c=True)


def _openblas_is_faster(X: Tensor) -> bool:
    """On more than two threads torch's division of each product among them wins."""
    return X.device.type == "cpu" and X.dtype in _GEMM and torch.get_num_threads() <= 2


def _half_gram(X: Tensor) -> Tensor:
    Y = X.numpy()
    return torch.from_numpy(np.matmul(Y, Y.swapaxes(-1, -2)))  # numpy sees that both are one and asks for half
