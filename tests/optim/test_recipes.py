"""Recipes: each does what its class does, rules match in order, states resume, bad files are named."""

import pytest
import pytorch_optimizer
import torch

from em_bench.errors import UserError
from em_bench.optim import build_optimizer, load_recipes
from em_bench.optim.muon import Muon
from em_bench.records import ParamRule

CLASSES = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.9, 0.999), eps=1e-8),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
    "lion": lambda p: pytorch_optimizer.Lion(p, lr=0.01, betas=(0.9, 0.99), weight_decay=0.0),
    "muon": lambda p: Muon(
        p,
        lr=0.01,
        weight_decay=0.0,
        momentum=0.95,
        nesterov=True,
        ns_coefficients=(3.4445, -4.775, 2.0315),
        ns_steps=5,
        adjust_lr_fn="original",
    ),
}


def parameters() -> dict[str, torch.nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    return {f"layer{i}.lora_A.weight": torch.nn.Parameter(torch.randn(4, 6 + i, generator=g)) for i in range(3)}


def steps(optimizer, params, n: int, start: int = 0) -> None:
    for i in range(start, start + n):
        optimizer.zero_grad()
        sum(((i + 1) * 0.1 * p - 1).square().sum() for p in params).backward()
        optimizer.step()


def test_recipes_have_letters_and_rates_for_either_class_of_model():
    recipes = load_recipes()
    assert set(CLASSES) <= set(recipes)
    for r in recipes.values():
        assert set(r.learning_rates) == {"organism", "llm"} and r.provenance["optimizer"] in "PSC"
        for rates in r.learning_rates.values():
            assert rates.default in rates.grid and len(rates.grid) == 3


@pytest.mark.parametrize("name", CLASSES)
def test_a_recipe_is_its_class(name):
    ours, theirs = parameters(), parameters()
    steps(build_optimizer(load_recipes()[name].rules, ours.items(), 0.01), ours.values(), 5)
    steps(CLASSES[name](list(theirs.values())), theirs.values(), 5)
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert not torch.equal(ours["layer0.lora_A.weight"], parameters()["layer0.lora_A.weight"])


@pytest.mark.parametrize("name", CLASSES)
def test_resumes_bit_for_bit(name, tmp_path):
    rules = load_recipes()[name].rules
    whole, first = parameters(), parameters()
    steps(build_optimizer(rules, whole.items(), 0.01), whole.values(), 6)
    optimizer = build_optimizer(rules, first.items(), 0.01)
    steps(optimizer, first.values(), 3)
    torch.save([optimizer.state_dict(), {n: p.detach() for n, p in first.items()}], tmp_path / "state")
    state, values = torch.load(tmp_path / "state", weights_only=True)
    second = {n: torch.nn.Parameter(v) for n, v in values.items()}
    optimizer = build_optimizer(rules, second.items(), 0.01)
    optimizer.load_state_dict(state)
    steps(optimizer, second.values(), 3, start=3)
    assert all(torch.equal(whole[n], second[n]) for n in whole)


def test_first_matching_rule_takes_a_parameter():
    rules = [ParamRule(pattern="layer0", optimizer="torch.optim.SGD"), ParamRule(pattern=".*", optimizer="torch.optim.AdamW")]
    optimizer = build_optimizer(rules, parameters().items(), 0.1)
    assert [type(o).__name__ for o in optimizer.optimizers] == ["SGD", "AdamW"]
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 2]
    for g in optimizer.param_groups:
        g["lr"] = 0.5
    assert {g["lr"] for o in optimizer.optimizers for g in o.param_groups} == {0.5}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([ParamRule(pattern="layer0", optimizer="torch.optim.SGD")], "none matches the parameter layer1"),
        ([ParamRule(pattern=".*", optimizer="torch.optim.Nope")], "no such optimiser"),
        ([ParamRule(pattern=".*", optimizer="os.path.join")], "is not a torch.optim.Optimizer"),
        ([ParamRule(pattern=".*", optimizer="torch.optim.SGD", kwargs={"beta": 1})], "does not take these arguments"),
    ],
)
def test_bad_rules_are_named(rules, message):
    with pytest.raises(UserError, match=message):
        build_optimizer(rules, parameters().items(), 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {description: x, rules: [{pattern: '(', optimizer: y}], learning_rates: {}, provenance: {}}", "rules.0.pattern"),
        ("a: {description: x, rules: [], learning_rates: {}, provenance: {}}", "a.rules"),
        ("a: {descriptions: x}", "a.description"),
        ("a: [", "not YAML"),
    ],
)
def test_a_bad_file_names_file_and_field(tmp_path, text, message):
    path = tmp_path / "optimisers.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as e:
        load_recipes(path)
    assert str(path) in str(e.value) and message in str(e.value) and "\n" not in str(e.value)
