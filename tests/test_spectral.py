"""Spectral mathematics against dense float64 SVD and autograd."""

import math

import pytest
import torch

from em_bench.errors import UserError
from em_bench.flatness import MEASURES, Measure, SpectralTerm
from em_bench.protocol import FLATNESS
from em_bench.spectral import (
    LoraPair,
    add_penalty_gradients,
    layer_spectra,
    lora_pairs,
    norm_of,
    singular_values,
    spectrum_summary,
)

R, D_IN, D_OUT = 8, 24, 40


def factors(kind: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(A, B) in float64 whose product has a known kind of spectrum."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(R, D_IN, generator=g, dtype=torch.float64)
    B = torch.randn(D_OUT, R, generator=g, dtype=torch.float64)
    U, V = torch.linalg.qr(B).Q, torch.linalg.qr(A.T).Q
    match kind:
        case "random":
            return A, B
        case "flat":  # all singular values equal: degenerate eigenvalues
            return V.T.contiguous(), 3 * U
        case "graded":
            return V.T.contiguous(), U * torch.logspace(0, -7, R, dtype=torch.float64)
        case "near-rank-1":
            return A, B[:, :1] @ torch.randn(1, R, generator=g, dtype=torch.float64) + 1e-4 * B
        case "rank-deficient":
            return A, torch.cat([B[:, :5], torch.zeros(D_OUT, 3, dtype=torch.float64)], 1)
        case "tiny":
            return A, 1e-6 * B


def dense(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(B @ A)[: min(A.shape + B.shape)]


@pytest.mark.parametrize("kind", ["random", "flat", "graded", "near-rank-1", "rank-deficient", "tiny"])
def test_singular_values(kind):
    A, B = factors(kind)
    assert torch.allclose(singular_values(A, B), dense(A, B), rtol=1e-9, atol=1e-13 * float(dense(A, B)[0]) * 100)


def test_rank_above_a_dimension():
    A, B = torch.randn(8, 5, dtype=torch.float64), torch.randn(6, 8, dtype=torch.float64)
    assert torch.allclose(singular_values(A, B), torch.linalg.svdvals(B @ A)[:5])


def test_quantities_by_hand():
    sigma = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)
    A = torch.eye(3, 7, dtype=torch.float64)
    B = torch.zeros(9, 3, dtype=torch.float64)
    B[:3] = torch.diag(sigma)
    [s] = layer_spectra([LoraPair("x", A, B)])
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert s.stable_rank == pytest.approx(6 / 4)
    assert s.entropy == pytest.approx(entropy) and s.effective_rank == pytest.approx(math.exp(entropy))
    assert s.condition_number == pytest.approx(2)
    assert s.frobenius_nuclear == pytest.approx(math.sqrt(6) / 4)
    assert s.flatness_gap == pytest.approx(math.sqrt(6) / 4 - 1 / math.sqrt(3))


def test_the_norm_by_hand_and_against_the_dense_update():
    """sigma = (2, 1, 1) times 1.5, beside a layer of three experts, one of them untouched: no B A is formed."""
    sigma = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)
    A, B = torch.eye(3, 7, dtype=torch.float64), torch.zeros(9, 3, dtype=torch.float64)
    B[:3] = torch.diag(sigma)
    by_hand = LoraPair("x", A, B, scale=1.5)
    assert spectrum_summary([by_hand]).norm == pytest.approx(1.5 * math.sqrt(6), rel=1e-12)
    g = torch.Generator().manual_seed(4)
    X, Y = torch.randn(3 * R, D_IN, generator=g, dtype=torch.float64), torch.randn(D_OUT, 3 * R, generator=g, dtype=torch.float64)
    Y.view(D_OUT, R, 3)[:, :, 1] = 0
    experts = LoraPair("experts", X, Y, 3, scale=-0.25)
    dense = [0.25 * Y.view(D_OUT, R, 3)[:, :, e] @ X.view(3, R, D_IN)[e] for e in range(3)]
    expected = math.sqrt(1.5**2 * 6 + sum(float(d.square().sum()) for d in dense))
    assert spectrum_summary([by_hand, experts]).norm == pytest.approx(expected, rel=1e-12)
    assert spectrum_summary([by_hand, experts._replace(scale=None)]).norm is None
    assert norm_of(layer_spectra([by_hand._replace(B=0 * B)])) == 0


def test_the_scale_cancels():
    A, B = factors("random")
    one, other = layer_spectra(LoraPair("x", A, c * B) for c in (1.0, 11.3))
    assert one.flatness_gap == pytest.approx(other.flatness_gap, rel=1e-12)
    assert one.condition_number == pytest.approx(other.condition_number, rel=1e-9)


@pytest.mark.parametrize(
    "kind, tolerance", [("random", 1e-7), ("flat", 1e-7), ("near-rank-1", 1e-6), ("graded", 1e-6), ("rank-deficient", 1e-6)]
)
def test_penalty_and_gradient_against_autograd_of_a_dense_svd(kind, tolerance):
    A, B = (t.requires_grad_() for t in factors(kind))
    if kind == "flat":  # torch's SVD has no gradient at equal singular values; the term does: F and N as matrix functions
        W = B @ A
        N = torch.sqrt(torch.linalg.eigvalsh(A @ A.T @ (B.T @ B)).clamp_min(0)).sum()
        assert float(add_penalty_gradients([LoraPair("x", A, B)], SpectralTerm(1.0))) == pytest.approx(0, abs=1e-9)
        assert float(A.grad.abs().max()) < 1e-9 and float(B.grad.abs().max()) < 1e-9  # a minimum
        assert W.shape == (D_OUT, D_IN) and N > 0
        return
    # The regulariser is defined with a ridge, sigma = svdvals(L'A), L = chol(B'B + 1e-8 I); where singular values are
    # not far above 1e-4 ||A|| that is another number than without.
    L = torch.linalg.cholesky(B.T @ B + 1e-8 * torch.eye(R, dtype=torch.float64))
    sigma = torch.linalg.svdvals(L.T @ A)
    expected = sigma.norm() / sigma.sum() - 1 / math.sqrt(R)
    if kind == "random":
        plain = dense(A, B).detach()
        assert float(expected) == pytest.approx(float(plain.norm() / plain.sum()) - 1 / math.sqrt(R), abs=1e-7)
    gA, gB = torch.autograd.grad(expected, (A, B))
    value = add_penalty_gradients([LoraPair("x", A, B)], SpectralTerm(0.7))
    assert value == pytest.approx(float(expected.detach()), abs=1e-9)
    for ours, theirs in ((A.grad, 0.7 * gA), (B.grad, 0.7 * gB)):
        assert float((ours - theirs).norm() / theirs.norm()) < tolerance


def test_mean_over_layers_of_mixed_shapes_and_accumulation():
    shapes = [(24, 40), (24, 40), (10, 9), (24, 40)]
    g = torch.Generator().manual_seed(1)
    pairs, expected = [], 0.0
    for i, (d_in, d_out) in enumerate(shapes):
        A = torch.randn(4, d_in, generator=g, dtype=torch.float64, requires_grad=True)
        B = torch.randn(d_out, 4, generator=g, dtype=torch.float64, requires_grad=True)
        pairs.append(LoraPair(str(i), A, B))
        sigma = dense(A, B)
        expected = expected + (sigma.norm() / sigma.sum() - 0.5) / 4
    leaves = [t for p in pairs for t in (p.A, p.B)]
    gradients = torch.autograd.grad(expected, leaves)
    for t in leaves:
        t.grad = torch.ones_like(t)
    assert add_penalty_gradients(pairs, SpectralTerm(2.0)) == pytest.approx(float(expected), abs=1e-8)
    assert add_penalty_gradients(pairs, SpectralTerm(0.0)) == pytest.approx(float(expected), abs=1e-8)
    for t, gradient in zip(leaves, gradients, strict=True):
        assert torch.allclose(t.grad, 1 + 2 * gradient, atol=1e-6)


def test_layers_without_an_update_are_skipped():
    A, B = factors("random")
    zero = LoraPair("zero", A.clone().requires_grad_(), torch.zeros(D_OUT, R, dtype=torch.float64, requires_grad=True))
    moved = LoraPair("moved", A.clone().requires_grad_(), B.clone().requires_grad_())
    assert add_penalty_gradients([zero], SpectralTerm(0.0)) == 0.0 and add_penalty_gradients([zero], SpectralTerm(1.0)) == 0.0
    assert zero.A.grad is None and zero.B.grad is None and spectrum_summary([zero]) is None
    assert add_penalty_gradients([zero, moved], SpectralTerm(0.0)) == add_penalty_gradients([moved], SpectralTerm(0.0))
    assert spectrum_summary([zero, moved]).layers == 1


def test_float32_parameters_get_float32_gradients():
    A, B = (t.float().requires_grad_() for t in factors("random"))
    add_penalty_gradients([LoraPair("x", A, B)], SpectralTerm(1.0))
    assert A.grad.dtype == B.grad.dtype == torch.float32


@pytest.mark.parametrize("kind, tolerance", [("random", 1e-5), ("graded", 1e-5), ("near-rank-1", 2e-3)])
def test_the_gradient_in_float32_is_that_in_float64(kind, tolerance):
    """Only the last product is in float32; near rank 1 its large parts cancel."""
    single = [t.float().requires_grad_() for t in factors(kind)]
    exact = [t.detach().double().requires_grad_() for t in single]
    add_penalty_gradients([LoraPair("x", *exact)], SpectralTerm(1.0))
    add_penalty_gradients([LoraPair("x", *single)], SpectralTerm(1.0))
    for a, b in zip(exact, single, strict=True):
        assert float((a.grad - b.grad.double()).norm() / a.grad.norm()) < tolerance


def test_the_term_flattens():
    A, B = (t.requires_grad_() for t in factors("random", seed=3))
    pair, before = LoraPair("x", A, B), add_penalty_gradients([LoraPair("x", A, B)], SpectralTerm(0.0))
    for _ in range(300):
        A.grad = B.grad = None
        add_penalty_gradients([pair], SpectralTerm(1.0))
        with torch.no_grad():
            A -= 2.0 * A.grad
            B -= 2.0 * B.grad
    assert add_penalty_gradients([pair], SpectralTerm(0.0)) < 0.2 * before


def test_pairs_from_names():
    A, B = factors("random")
    names = {"base_model.model.model.layers.0.q_proj.lora_A.weight": A, "base_model.model.model.layers.0.q_proj.lora_B.weight": B}
    assert [p.name for p in lora_pairs(names)] == ["model.layers.0.q_proj"]
    with pytest.raises(UserError, match="incomplete"):
        lora_pairs({"x.lora_A.weight": A})
    with pytest.raises(UserError, match="no LoRA pair"):
        lora_pairs({"x.lora_A.weight": A, "x.lora_B.weight": B.T})


def test_a_batch_is_its_matrices():
    """One eigendecomposition for a group gives what one a matrix gives."""

    def fresh():
        out = []
        for i in range(6):
            A, B = factors("random", seed=i)
            if i == 2:
                B = torch.zeros_like(B)
            out.append(LoraPair(str(i), A.requires_grad_(), B.requires_grad_()))
        return out

    batched, single = fresh(), fresh()
    value = add_penalty_gradients(batched, SpectralTerm(0.5))
    alone = [add_penalty_gradients([p], SpectralTerm(0.5 / 5)) for p in single]
    assert value == pytest.approx(sum(alone) / 5, abs=1e-12)
    for a, b in zip(batched, single, strict=True):
        for x, y in zip(a[1:3], b[1:3], strict=True):
            if x.grad is None:
                assert a.name == "2" and y.grad is None
            else:
                assert torch.allclose(x.grad, y.grad, atol=1e-10)


def test_experts_are_layers_of_their_own():
    """PEFT's layout: expert e of A is A.view(E, r, -1)[e], of B B.view(out, r, E)[:, :, e]."""
    E, (A, B) = 3, factors("random", seed=9)
    g = torch.Generator().manual_seed(10)
    A, B = torch.randn(E * R, D_IN, generator=g, dtype=torch.float64), torch.randn(D_OUT, R * E, generator=g, dtype=torch.float64)
    B.view(D_OUT, R, E)[:, :, 1] = 0  # an expert that no token has reached
    whole = LoraPair("experts", A.clone().requires_grad_(), B.clone().requires_grad_(), E)
    parts = [
        LoraPair(str(e), A.view(E, R, -1)[e].clone().requires_grad_(), B.view(D_OUT, R, E)[:, :, e].clone().requires_grad_())
        for e in range(E)
    ]
    assert add_penalty_gradients([whole], SpectralTerm(2.0)) == pytest.approx(
        add_penalty_gradients(parts, SpectralTerm(2.0)), abs=1e-12
    )
    for e in (0, 2):
        assert torch.allclose(whole.A.grad.view(E, R, -1)[e], parts[e].A.grad, atol=1e-12)
        assert torch.allclose(whole.B.grad.view(D_OUT, R, E)[:, :, e], parts[e].B.grad, atol=1e-12)
    assert not whole.A.grad.view(E, R, -1)[1].any() and parts[1].A.grad is None
    summary = spectrum_summary([whole])
    assert summary.layers == 2 and summary == spectrum_summary(parts)
    assert [p.name for p in whole.layers()] == ["experts.0", "experts.1", "experts.2"]


def test_experts_without_their_number_are_refused():
    A, B = factors("random")
    with pytest.raises(UserError, match="read its folder with load_adapter"):
        lora_pairs({"m.layers.0.mlp.experts.lora_A.weight": A, "m.layers.0.mlp.experts.lora_B.weight": B})


def test_another_measure_is_a_function_of_the_singular_values(monkeypatch):
    def entropy_gap(s):
        p = s / s.sum(-1, keepdim=True)
        return 1 + (p * p.log()).sum(-1) / math.log(s.shape[-1])

    monkeypatch.setitem(MEASURES, "entropy", Measure("", entropy_gap))
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in ((4, 9), (11, 4)))
    expected = entropy_gap(torch.linalg.svdvals(B @ A)[:4])
    wanted = torch.autograd.grad(expected, (A, B))
    assert add_penalty_gradients([LoraPair("x", A, B)], SpectralTerm(0.7, "entropy")) == pytest.approx(expected.item(), abs=1e-8)
    for tensor, gradient in zip((A, B), wanted, strict=True):
        torch.testing.assert_close(tensor.grad, 0.7 * gradient, rtol=1e-6, atol=1e-9)


def test_the_shipped_closed_form_is_the_derivative_of_its_measure(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    factors = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((8, 20), (30, 8))]
    found = []
    for measure in (MEASURES[FLATNESS], MEASURES[FLATNESS]._replace(products=None)):
        monkeypatch.setitem(MEASURES, FLATNESS, measure)
        A, B = (torch.nn.Parameter(f.clone()) for f in factors)
        found.append((add_penalty_gradients([LoraPair("x", A, B)], SpectralTerm(1.0)), A.grad, B.grad))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-12)
    torch.testing.assert_close(found[0][1:], found[1][1:], rtol=1e-9, atol=1e-12)
    with pytest.raises(UserError, match="no such measure"):
        add_penalty_gradients([], SpectralTerm(1.0, "flat"))
