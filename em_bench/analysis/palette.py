"""One colour per optimiser, everywhere; from the colour-blind-safe set of Okabe and Ito, readable on white and on black."""

RECIPES = {
    "sgd": "#cc79a7",
    "adam": "#e69f00",
    "adamw": "#0072b2",
    "lion": "#d55e00",
    "muon": "#009e73",
}
OTHERS = ("#8c8c8c", "#56b4e9", "#b8a300", "#7b61c9")
BASE = "#777777"


def colour(recipe: str | None) -> str:
    """The colour of an optimiser; others than the five baselines share the rest of the set by their name."""
    if recipe is None:
        return BASE
    return RECIPES.get(recipe) or OTHERS[sum(recipe.encode()) % len(OTHERS)]
