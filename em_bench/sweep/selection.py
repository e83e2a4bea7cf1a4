"""How a learning rate and a lambda are chosen: on held-out narrow loss alone. Nothing here can see an evaluation."""

import math
from collections.abc import Mapping, Sequence

from em_bench.protocol import largest_lambda, lowest_loss
from em_bench.records import Choice
from em_bench.sweep.preset import LambdaGrid


def choose_learning_rate(
    losses: Mapping[float, Sequence[float]], runs: int, *, model: str, recipe: str, batch_size: int
) -> Choice:
    """The rate with the lowest mean narrow loss; of equal ones the smallest.

    `losses` maps each rate to the narrow losses of its finished runs. A rate with fewer than `runs` of them diverged
    somewhere and is no candidate; if that holds of all, nothing is chosen.
    """
    means = _means(losses, runs)
    return Choice(
        kind="learning_rate",
        model=model,
        recipe=recipe,
        batch_size=batch_size,
        chosen=lowest_loss(means),
        losses={f"{rate:g}": loss for rate, loss in means.items()},
        rule=f"lowest mean held-out narrow loss of {runs} runs at lambda 0; a rate at which a run diverged is out",
    )


def choose_lambda(
    losses: Mapping[float, Sequence[float]], runs: int, grid: LambdaGrid, *, model: str, recipe: str, batch_size: int
) -> Choice:
    """The largest lambda of the grid whose mean narrow loss is at most that of lambda 0 plus the tolerance, if any.

    `losses` maps 0 and each lambda of the grid to the narrow losses of its finished runs.
    """
    means = _means(losses, runs)
    return Choice(
        kind="spectral_lambda",
        model=model,
        recipe=recipe,
        batch_size=batch_size,
        chosen=largest_lambda(means, grid.tolerance),
        losses={f"{value:g}": loss for value, loss in means.items()},
        rule=f"largest lambda whose mean held-out narrow loss of {runs} runs is at most {grid.tolerance:g} nats above lambda 0",
    )


def _means(losses: Mapping[float, Sequence[float]], runs: int) -> dict[float, float]:
    return {value: math.fsum(found) / runs for value, found in sorted(losses.items()) if len(found) == runs}
