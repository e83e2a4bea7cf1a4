"""How a learning rate and a lambda are chosen: on held-out narrow loss alone. Nothing here can see an evaluation."""

import math
from collections.abc import Callable, Mapping, Sequence

from em_bench.protocol import largest_lambda, next_place, rate_of, smallest_rate
from em_bench.records import Choice
from em_bench.sweep.preset import LambdaGrid, RateRule


def walk_rates(
    losses_at: Callable[[float], Sequence[float]],
    runs: int,
    rule: RateRule,
    target: float,
    start: float,
    weight: float = 0.0,
    **about,
) -> Choice:
    """The smallest rate of the rule's grid whose mean narrow loss is at most `target` and the rule's tolerance, walked to from `start`.
    `weight`: the lambda of the runs.

    `losses_at` trains at a rate and gives the narrow losses of the runs that finished; fewer than `runs`: one diverged. A choice is on the
    edge where the walk was ended by its limit: its smaller neighbour was not tried, or no rate met the target and the one of the
    lowest loss stands.
    """
    place_of_start = round(rule.per_decade * math.log10(start))
    found: dict[int, float | None] = {}
    while (place := next_place(found, place_of_start, target + rule.tolerance, rule.most)) is not None:
        losses = losses_at(rate_of(place, rule.per_decade))
        found[place] = math.fsum(losses) / runs if len(losses) == runs else None
    places = {rate_of(place, rule.per_decade): place for place in sorted(found)}
    means = {rate: loss for rate, place in places.items() if (loss := found[place]) is not None}
    chosen = smallest_rate(means, target + rule.tolerance)
    met = chosen is not None
    if not met and means:
        chosen = smallest_rate(means, min(means.values()))
    return Choice(
        kind="learning_rate",
        chosen=chosen,
        losses={f"{rate:g}": loss for rate, loss in means.items()},
        edge=chosen is not None and not (met and places[chosen] - 1 in found),
        rule=(
            f"smallest rate whose mean final held-out narrow loss of {runs} runs at lambda {weight:g} is at most {target + rule.tolerance:.4f}, "
            f"on a grid of {rule.per_decade} a decade walked from {rate_of(place_of_start, rule.per_decade):g}, {rule.most} at most"
        ),
        **about,
    )


def choose_learning_rate(
    losses: Mapping[float, Sequence[float]], runs: int, tolerance: float, weight: float = 0.0, **about
) -> Choice:
    """The smallest of given rates whose mean narrow loss lies within `tolerance` nats of the lowest.

    `losses` maps each rate to the narrow losses of its finished runs. A rate with fewer than `runs` of them diverged
    somewhere and is no candidate; if that holds of all, nothing is chosen.
    """
    means = _means(losses, runs)
    return Choice(
        kind="learning_rate",
        chosen=smallest_rate(means, min(means.values()) + tolerance) if means else None,
        losses={f"{rate:g}": loss for rate, loss in means.items()},
        rule=(
            f"smallest rate whose mean held-out narrow loss of {runs} runs at lambda {weight:g} lies within {tolerance:g} nats of the lowest; "
            "a rate at which a run diverged is out"
        ),
        **about,
    )


def choose_lambda(
    losses: Mapping[float, Sequence[float]], runs: int, grid: LambdaGrid, target: float | None = None, **about
) -> Choice:
    """The largest lambda of the grid whose mean narrow loss is at most `target`, or else lambda 0's, plus the tolerance, if any.

    `losses` maps 0 and each lambda that was tried to the narrow losses of its finished runs.
    """
    means = _means(losses, runs)
    over = "lambda 0" if target is None else f"the target of {target:.4f}"
    return Choice(
        kind="spectral_lambda",
        chosen=largest_lambda(means, grid.tolerance, target),
        losses={f"{value:g}": loss for value, loss in means.items()},
        rule=f"largest lambda whose mean held-out narrow loss of {runs} runs is at most {grid.tolerance:g} nats above {over}",
        **about,
    )


def _means(losses: Mapping[float, Sequence[float]], runs: int) -> dict[float, float]:
    return {value: math.fsum(found) / runs for value, found in sorted(losses.items()) if len(found) == runs}
