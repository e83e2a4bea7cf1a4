"""The products of LoRA factors against torch's, on every way they are computed."""

import pytest
import torch
from threadpoolctl import threadpool_info

from em_bench.products import Scratch, add_product, gram, grams_in_float64, openblas_on_one_thread


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def random(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("shape", [(1, 4, 30), (3, 4, 30)])
def test_gram(threads, dtype, tolerance, shape):
    X = random(*shape, dtype=dtype)
    for Y in (X, X.mT.contiguous().mT):
        exact = torch.einsum("eij,ekj->eik", X.double(), X.double())
        assert torch.allclose(gram(Y).double(), exact, rtol=tolerance, atol=tolerance * 30)
        (found,) = grams_in_float64([Y])
        assert found.dtype == torch.float64 and torch.allclose(found, exact, rtol=1e-13, atol=1e-13)


def test_grams_keep_their_order(threads):
    matrices = [random(1, 2, n, dtype=torch.float32) for n in (3, 9, 4, 8, 5)]
    for X, found in zip(matrices, grams_in_float64(matrices), strict=True):
        assert torch.allclose(found, X.double() @ X.double().mT, rtol=1e-14)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("m, k, n", [(4, 4, 50), (50, 4, 4), (4, 4, 4), (1, 4, 9)])
@pytest.mark.parametrize("layout", ["plain", "strided out", "strided factors"])
def test_add_product(threads, dtype, tolerance, m, k, n, layout):
    out, left, right = random(m, n, dtype=dtype), random(m, k, dtype=dtype), random(k, n, dtype=dtype)
    expected = out.double() + 0.3 * torch.einsum("ij,jk->ik", left.double(), right.double())
    if layout == "strided out":
        out = out.T.contiguous().T
    if layout == "strided factors":
        left, right = left.T.contiguous().T, right.T.contiguous().T
    address = out.data_ptr()
    add_product(out, left, right, 0.3, Scratch([out], dtype))
    assert out.data_ptr() == address
    assert torch.allclose(out.double(), expected, rtol=tolerance, atol=10 * tolerance)


def test_openblas_has_one_thread_inside_and_as_many_as_before_outside():
    """Both copies, numpy's and scipy's: with several threads their turns with torch's took seven seconds in place of 0.2."""

    def sizes():
        return [pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas"]

    before = sizes()
    with openblas_on_one_thread():
        assert set(sizes()) == {1}
    assert sizes() == before
