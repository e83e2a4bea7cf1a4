"""Learning rates and lambdas are chosen by narrow loss, by the stated rule and nothing else."""

import pytest

from em_bench.sweep.preset import LambdaGrid
from em_bench.sweep.selection import choose_lambda, choose_learning_rate

ABOUT = {"model": "m", "recipe": "r", "batch_size": 32}
GRID = LambdaGrid(grid=(0.3, 1.0, 3.0), tolerance=0.01)


def test_lowest_mean_wins():
    choice = choose_learning_rate({1e-3: [0.5, 0.7], 3e-3: [0.4, 0.6], 1e-2: [0.3, 0.9]}, 2, **ABOUT)
    assert choice.chosen == 3e-3
    assert choice.losses == {"0.001": pytest.approx(0.6), "0.003": pytest.approx(0.5), "0.01": pytest.approx(0.6)}


def test_equal_rates_give_the_smaller():
    assert choose_learning_rate({3e-3: [0.5], 1e-3: [0.5]}, 1, **ABOUT).chosen == 1e-3


def test_a_rate_that_diverged_once_is_out():
    choice = choose_learning_rate({1e-3: [0.6, 0.6], 1.0: [0.1]}, 2, **ABOUT)
    assert choice.chosen == 1e-3 and "1" not in choice.losses


def test_nothing_is_chosen_where_all_diverged():
    assert choose_learning_rate({}, 2, **ABOUT).chosen is None


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ({0.0: [0.5], 0.3: [0.505], 1.0: [0.509], 3.0: [0.52]}, 1.0),
        ({0.0: [0.5], 0.3: [0.49], 1.0: [0.48], 3.0: [0.47]}, 3.0),
        ({0.0: [0.5], 0.3: [0.53], 1.0: [0.505], 3.0: [0.6]}, 1.0),  # not the first that fails, but the largest that holds
        ({0.0: [0.5], 0.3: [0.52], 1.0: [0.53], 3.0: [0.54]}, None),
        ({0.0: [0.5, 0.7], 0.3: [0.52, 0.69], 1.0: [0.52, 0.71], 3.0: [0.9, 0.2, 0.1]}, 0.3),  # means; a wrong count is out
        ({0.3: [0.5], 1.0: [0.5], 3.0: [0.5]}, None),  # no lambda 0 to compare with
    ],
)
def test_largest_lambda_within_the_tolerance(losses, chosen):
    runs = max(len(v) for v in losses.values() if len(v) < 3)
    assert choose_lambda(losses, runs, GRID, **ABOUT).chosen == chosen
