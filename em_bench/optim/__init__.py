"""Optimiser recipes and the optimisers that they name. torch is imported when an optimiser is built, not when one is named."""

from typing import TYPE_CHECKING, Any

from em_bench.optim.names import optimizer_names
from em_bench.optim.recipes import LearningRates, Recipe, check_optimizer, load_recipes, resolve_recipe

if TYPE_CHECKING:
    from em_bench.optim.build import RecipeOptimizer, build_optimizer

__all__ = [
    "LearningRates",
    "Recipe",
    "RecipeOptimizer",
    "build_optimizer",
    "check_optimizer",
    "load_recipes",
    "optimizer_names",
    "resolve_recipe",
]


def __getattr__(name: str) -> Any:
    if name in ("RecipeOptimizer", "build_optimizer"):
        from em_bench.optim import build

        return getattr(build, name)
    raise AttributeError(name)
