"""Optimiser recipes: baselines/optimisers.yaml, checked."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from pydantic import Field, ValidationError, model_validator

from em_bench import assets
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.files import first_problem
from em_bench.optim.names import found, optimizer_class, optimizer_names
from em_bench.records import ParamRule, Provenance, RecipeClass, RecipeRef, Record
from em_bench.yaml_file import checked, read_yaml


class LearningRates(Record):
    """Learning rates for one class of base models."""

    default: float = Field(gt=0)
    grid: tuple[float, ...] = Field(min_length=1, description="candidates, chosen among on held-out narrow loss")
    provenance: Provenance

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.grid) <= 0:
            raise ValueError("grid: learning rates are positive")
        return self


class Recipe(Record):
    """One optimiser as users name it. `name` is the key in the file."""

    name: str
    description: str
    rules: tuple[ParamRule, ...] = Field(min_length=1, description="first match wins")
    learning_rates: dict[RecipeClass, LearningRates]
    provenance: dict[str, Provenance] = Field(description="fact -> how sure we are that the paper did the same")

    @model_validator(mode="after")
    def _patterns(self) -> Self:
        for i, rule in enumerate(self.rules):
            try:
                re.compile(rule.pattern)
            except re.error as e:
                raise ValueError(f"rules.{i}.pattern: not a regular expression ({e})") from None
        return self

    def resolve(self, learning_rate: float) -> RecipeRef:
        """The recipe at one learning rate, as it enters a run's identity."""
        return RecipeRef(name=self.name, rules=self.rules, learning_rate=learning_rate)


def resolve_recipe(
    name: str, learning_rate: float | None, kind: RecipeClass, arguments: Mapping = MappingProxyType({})
) -> RecipeRef:
    """A recipe of baselines/optimisers.yaml, or any optimiser by its name (see `em_bench.optim.names`), at one learning rate.

    `arguments` are added to the keyword arguments of every rule. Raises UserError for an unknown name, and where an
    optimiser that is no recipe comes without a learning rate.
    """
    recipes = load_recipes()
    if name in recipes:
        ref = recipes[name].resolve(recipes[name].learning_rates[kind].default if learning_rate is None else learning_rate)
    else:
        check_optimizer(name)
        if learning_rate is None:
            raise UserError(f"{name}: is no recipe with a learning rate of its own; give one with --lr")
        rule = ParamRule(pattern=".*", optimizer=name)
        ref = RecipeRef(name=name.rpartition(".")[2].lower(), rules=(rule,), learning_rate=learning_rate)
    if not arguments:
        return ref
    try:
        rules = tuple(ParamRule(**{**r.model_dump(), "kwargs": {**r.kwargs, **arguments}}) for r in ref.rules)
    except ValidationError as e:
        raise UserError(f"{name}: {first_problem(e)}") from None
    return ref.model_copy(update={"rules": rules})


def check_optimizer(name: str) -> None:
    """Raise UserError unless this is a recipe or an optimiser. Only a class with a dot in its name is imported."""
    recipes = load_recipes()
    if name not in recipes and "." not in name and name.lower() not in (*optimizer_names(), *found()["refused"]):
        raise unknown(
            "recipe or optimiser",
            name,
            [*recipes, *optimizer_names()],
            f"a recipe ({', '.join(recipes)}), or a class such as torch.optim.AdamW",
        )
    if name not in recipes:
        optimizer_class(name)


def load_recipes(path: Path | None = None) -> dict[str, Recipe]:
    """All recipes by name. Raises UserError naming the file and the field."""
    path = path or assets.path("baselines", "optimisers.yaml")
    raw = read_yaml(path, dict[str, dict])
    return checked({n: {"name": n, **r} for n, r in raw.items()}, dict[str, Recipe], str(path))
