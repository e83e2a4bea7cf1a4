"""Optimisers by name: the list was established by running, the others are refused with the reason."""

import sys

import pytest
import pytorch_optimizer
import torch

from em_bench.errors import UserError
from em_bench.optim import build_optimizer, load_recipes, optimizer_names, resolve_recipe
from em_bench.optim.compatibility import survey, trial
from em_bench.optim.names import found, optimizer_class
from em_bench.records import ParamRule


def parameters() -> dict[str, torch.nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    shapes = {"lora_A": (4, 12), "lora_B": (10, 4)}
    return {f"l{i}.{k}.weight": torch.nn.Parameter(torch.randn(s, generator=g)) for i in range(2) for k, s in shapes.items()}


def build(name, lr=1e-2, params=None, **kwargs):
    rule = ParamRule(pattern=".*", optimizer=name, kwargs=kwargs)
    return build_optimizer([rule], (params or parameters()).items(), lr)


def step(optimizer, params, seed=0) -> None:
    g = torch.Generator().manual_seed(seed)
    for p in params.values():
        p.grad = torch.randn(p.shape, generator=g)
    optimizer.step()


def test_the_list_covers_every_name_of_the_installed_version():
    listed = [*found()["plain"], *found()["muon_group"], *found()["refused"]]
    assert sorted(listed) == sorted(pytorch_optimizer.get_supported_optimizers()) and len(set(listed)) == len(listed)


@pytest.mark.slow
def test_the_list_is_what_running_gives():
    assert {k: v for k, v in survey().items() if k != "refused"} == {k: v for k, v in found().items() if k != "refused"}


@pytest.mark.parametrize(
    "name", ["soap", "adan", "muon", "schedulefreeadamw", "torch.optim.NAdam", "torch.optim.Adafactor", "pytorch_optimizer.Lion"]
)
def test_names_build_and_move(name):
    params = parameters()
    optimizer = build(name, params=params)
    for seed in range(3):
        step(optimizer, params, seed)
    assert all(bool(p.isfinite().all()) for p in params.values())
    assert any(not torch.equal(p, q) for p, q in zip(params.values(), parameters().values(), strict=True))


def test_capitals_do_not_matter():
    assert optimizer_class("SOAP") is optimizer_class("soap") and "soap" in optimizer_names()


@pytest.mark.parametrize("name, reason", [
    ("alig", "closure"),
    ("torch.optim.LBFGS", "closure"),
    ("pytorch_optimizer.LBFGS", "closure"),
    ("sophiah", "does not require grad"),
    ("lomo", "no attribute 'parameters'"),
    ("ranger21", "num_iterations"),
    ("torch.optim.SparseAdam", "does not step on gradients alone"),
    ("nothing", "no such optimiser"),
    ("torch.nn.Linear", "is not a torch.optim.Optimizer"),
])  # fmt: skip
def test_refusals_say_why(name, reason):
    with pytest.raises(UserError, match=reason) as e:
        build(name)
    assert str(e.value).startswith(name) and "\n" not in str(e.value)


def test_a_users_own_class(tmp_path, monkeypatch):
    (tmp_path / "mine_for_a_test.py").write_text(
        "import torch\n"
        "class Sign(torch.optim.Optimizer):\n"
        "    def __init__(self, params, lr, power=1.0): super().__init__(params, {'lr': lr, 'power': power})\n"
        "    @torch.no_grad()\n"
        "    def step(self, closure=None):\n"
        "        for g in self.param_groups:\n"
        "            for p in g['params']: p -= g['lr'] * g['power'] * p.grad.sign()\n"
        "class Still(Sign):\n"
        "    def step(self, closure=None): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    params = parameters()
    step(build("mine_for_a_test.Sign", lr=0.5, params=params, power=2.0), params)
    assert torch.allclose((params["l0.lora_A.weight"] - parameters()["l0.lora_A.weight"]).abs(), torch.tensor(1.0))
    with pytest.raises(UserError, match="has not moved"):
        build("mine_for_a_test.Still")
    del sys.modules["mine_for_a_test"]


def test_a_trial_leaves_the_random_state():
    before = torch.get_rng_state()
    assert trial(lambda p: torch.optim.SGD(p, lr=0.1)) is None
    assert torch.equal(before, torch.get_rng_state())


def test_recipes_by_name():
    ref = resolve_recipe("soap", 1e-3, "llm", {"weight_decay": 0.1})
    assert ref.name == "soap" and ref.rules[0].kwargs == {"weight_decay": 0.1} and ref.learning_rate == 1e-3
    assert resolve_recipe("adamw", None, "organism").learning_rate == load_recipes()["adamw"].learning_rates["organism"].default
    assert resolve_recipe("adamw", None, "llm", {"eps": 1e-6}).rules[0].kwargs["eps"] == 1e-6
    with pytest.raises(UserError, match="name a recipe \\(sgd, adam"):
        resolve_recipe("nothing", 1e-3, "llm")


def test_schedule_free_weights_are_switched():
    """Its training weights are not those to evaluate: `eval` gives the average, `train` the others back exactly enough."""
    params = parameters()
    optimizer = build("schedulefreeadamw", params=params)
    optimizer.train()
    for seed in range(5):
        step(optimizer, params, seed)
    training = {n: p.detach().clone() for n, p in params.items()}
    optimizer.eval()
    evaluated = {n: p.detach().clone() for n, p in params.items()}
    optimizer.train()
    assert any(not torch.equal(training[n], evaluated[n]) for n in params)
    assert all(torch.allclose(training[n], p, atol=1e-6) for n, p in params.items())
