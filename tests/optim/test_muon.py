"""Batched Muon against torch.optim.Muon, one matrix at a time; in float64 by taking the rounding out of torch's."""

import pytest
import torch

from em_bench.optim.muon import Muon, orthogonalised, split_experts

COEFFICIENTS = (3.4445, -4.775, 2.0315)
SHAPES = [(4, 24), (4, 24), (40, 4), (6, 6), (40, 4), (4, 10)]


@pytest.fixture
def unrounded(monkeypatch):
    """torch.optim.Muon as it is, but its cast to bfloat16 does nothing (it divides in place afterwards, so: a copy)."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())


def parameters(dtype=torch.float64, rank: int | None = None) -> list[torch.nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s, generator=g, dtype=torch.float64).to(dtype)) for s in SHAPES]


def train(optimizer, params, steps: int = 4) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=g, dtype=torch.float64).to(p.dtype)
        optimizer.step()
    return [p.detach() for p in params]


@pytest.mark.parametrize("options", [
    {}, {"weight_decay": 0.0, "adjust_lr_fn": "original"}, {"nesterov": False, "ns_steps": 3}, {"adjust_lr_fn": "match_rms_adamw", "momentum": 0.5},
])  # fmt: skip
def test_equals_torch_in_float64(unrounded, options):
    ours, theirs = parameters(), parameters()
    a, b = train(Muon(ours, lr=0.1, **options), ours), train(torch.optim.Muon(theirs, lr=0.1, **options), theirs)
    start = parameters()
    for x, y, s in zip(a, b, start, strict=True):
        assert float((x - y).norm() / (y - s).norm()) < 1e-10


def test_close_to_torch_as_it_is():
    """bfloat16 rounds to 3 digits; on full-rank gradients the iteration does not amplify that much."""
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    a, b = train(Muon(ours, lr=0.1), ours, 1), train(torch.optim.Muon(theirs, lr=0.1), theirs, 1)
    for x, y, s in zip(a, b, parameters(torch.float32), strict=True):
        assert float((x - y).norm() / (y - s).norm()) < 0.05


def test_float32_is_exact_on_low_rank_gradients_where_bfloat16_is_not():
    g = torch.Generator().manual_seed(2)
    X = torch.randn(3, 32, 4, generator=g, dtype=torch.float64) @ torch.randn(3, 4, 512, generator=g, dtype=torch.float64)
    exact = orthogonalised(X, COEFFICIENTS, 5, 1e-7)
    single = orthogonalised(X.float(), COEFFICIENTS, 5, 1e-7).double()
    from torch.optim._muon import _zeropower_via_newtonschulz

    rounded = torch.stack([_zeropower_via_newtonschulz(x.float(), COEFFICIENTS, 5, 1e-7) for x in X]).double()
    assert float((single - exact).norm() / exact.norm()) < 1e-3
    assert float((rounded - exact).norm() / exact.norm()) > 0.1


@pytest.mark.parametrize("shape", [(5, 8, 30), (5, 30, 8), (1, 7, 7)])
def test_a_batch_is_its_matrices(unrounded, shape):
    from torch.optim._muon import _zeropower_via_newtonschulz

    X = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    one_by_one = torch.stack([_zeropower_via_newtonschulz(x, COEFFICIENTS, 5, 1e-7) for x in X])
    assert float((orthogonalised(X, COEFFICIENTS, 5, 1e-7) - one_by_one).abs().max()) < 1e-10
    assert not orthogonalised(torch.zeros(shape), COEFFICIENTS, 5, 1e-7).any()


@pytest.mark.parametrize("side, shape", [("A", (3 * 4, 10)), ("B", (10, 4 * 3))])
def test_each_expert_is_its_own_matrix(side, shape):
    E, r = 3, 4
    g = torch.Generator().manual_seed(4)
    whole = torch.nn.Parameter(torch.randn(shape, generator=g, dtype=torch.float64))
    whole.grad = torch.randn(shape, generator=g, dtype=torch.float64)

    def expert(t, e):  # as TRAINING.md states PEFT's layout
        return t.view(E, r, -1)[e] if side == "A" else t.view(-1, r, E)[:, :, e]

    parts = [torch.nn.Parameter(expert(whole.detach(), e).clone()) for e in range(E)]
    for e, p in enumerate(parts):
        p.grad = expert(whole.grad, e).clone()
    Muon([{"params": [whole], "experts": E, "side": side}], lr=0.1).step()
    Muon(parts, lr=0.1).step()
    for e, p in enumerate(parts):
        assert torch.allclose(expert(whole.detach(), e), p.detach(), atol=1e-12)
        assert torch.equal(split_experts(whole.detach(), E, side)[e], expert(whole.detach(), e))


def test_a_parameter_without_a_gradient_stays(unrounded):
    params = parameters()
    params[0].grad = torch.ones_like(params[0])
    optimizer = Muon(params, lr=0.1)
    optimizer.step()
    assert not torch.equal(params[0], parameters()[0]) and all(
        torch.equal(a, b) for a, b in zip(params[1:], parameters()[1:], strict=True)
    )


@pytest.mark.parametrize("bad", [{"lr": -1}, {"ns_steps": 0}, {"adjust_lr_fn": "x"}, {"ns_coefficients": (1, 2)}])
def test_bad_arguments(bad):
    with pytest.raises(ValueError):
        Muon(parameters(), **bad)
    with pytest.raises(ValueError, match="matrices only"):
        Muon([torch.nn.Parameter(torch.ones(3))])
