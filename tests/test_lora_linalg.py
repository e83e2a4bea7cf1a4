"""The products of LoRA factors against torch's, on every way they are computed."""

import pytest
import torch
from threadpoolctl import threadpool_info

from em_bench.flatness import SpectralTerm
from em_bench.lora_linalg import SHARE, Scratch, add_product, gram, spread
from em_bench.optim.muon import Muon
from em_bench.spectral import LoraPair, add_penalty_gradients


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
def test_gram(dtype, tolerance, shape):
    X = random(*shape, dtype=dtype)
    for Y in (X, X.mT.contiguous().mT):
        exact = torch.einsum("eij,ekj->eik", X.double(), X.double())
        assert torch.allclose(gram(Y).double(), exact, rtol=tolerance, atol=tolerance * 30)


@pytest.mark.parametrize("size", [1, SHARE])
def test_shares_keep_their_order_and_have_a_thread_each(threads, size):
    tensors = [torch.zeros(size) for _ in range(5)]
    seen = []

    def work(items):
        seen.append((len(items), torch.get_num_threads(), torch.is_grad_enabled()))
        return [10 * i for i in items]

    assert spread(work, range(5), tensors) == [0, 10, 20, 30, 40]
    many = threads > 1 and size == SHARE
    shares = {1: [5], 2: [2, 3], 3: [1, 2, 2]}[threads if many else 1]
    assert sorted(n for n, _, _ in seen) == shares
    assert {(t, g) for _, t, g in seen} == {(1 if many else threads, False)}
    assert torch.get_num_threads() == threads


def test_an_error_in_a_share_comes_out_and_leaves_the_threads_as_they_were(threads):
    def fails(items):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spread(fails, range(3), [torch.zeros(SHARE)] * 3)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("m, k, n", [(4, 4, 50), (50, 4, 4), (4, 4, 4), (1, 4, 9)])
@pytest.mark.parametrize("layout", ["plain", "strided out", "strided factors"])
def test_add_product(dtype, tolerance, m, k, n, layout):
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


def test_openblas_has_one_thread_inside_and_as_many_as_before_outside(threads):
    """Both copies, numpy's and scipy's: with several threads their turns with torch's took seven seconds in place of 0.2."""

    def sizes():
        return [pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas"]

    before = sizes()
    (inside,) = spread(lambda items: [sizes()], [None], [torch.zeros(SHARE)])
    assert set(inside) == {1} and sizes() == before


@pytest.mark.parametrize("experts", [1, 2])
def test_the_term_and_muon_are_the_same_on_any_number_of_threads(monkeypatch, experts):
    """Bit for bit: a matrix is computed whole by one thread, whichever."""
    monkeypatch.setattr("em_bench.lora_linalg.SHARE", 1)
    before = torch.get_num_threads()

    def trained(threads: int) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        pairs = []
        for n in (50, 40, 30, 20, 10):
            A, B = (torch.nn.Parameter(random(*shape, dtype=torch.float32)) for shape in ((4 * experts, n), (2 * n, 4 * experts)))
            pairs.append(LoraPair(str(n), A, B, experts))
        optimizer = Muon(
            [
                {"params": [p.A for p in pairs], "side": "A", "experts": experts},
                {"params": [p.B for p in pairs], "side": "B", "experts": experts},
            ]
        )
        for _ in range(3):
            optimizer.zero_grad()
            assert add_penalty_gradients(pairs, SpectralTerm(0.5)) > 0
            optimizer.step()
        return [t for p in pairs for t in (p.A, p.B)]

    try:
        one, three = trained(1), trained(3)
    finally:
        torch.set_num_threads(before)
    for a, b in zip(one, three, strict=True):
        assert torch.equal(a, b)
