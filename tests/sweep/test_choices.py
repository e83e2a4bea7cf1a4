"""Learning rates and lambdas are chosen by narrow loss, by the stated rule and nothing else."""

import math
from itertools import pairwise

import pytest
from helpers.sweeps import MINI, preset_file, reproduce

from em_bench.errors import UserError
from em_bench.optim import load_recipes
from em_bench.protocol import rate_of
from em_bench.records import Results
from em_bench.sweep.preset import LambdaGrid, RateRule, load_preset
from em_bench.sweep.selection import choose_lambda, choose_learning_rate, walk_rates

ABOUT = {"model": "m", "recipe": "r", "batch_size": 32}
GRID = LambdaGrid(grid=(0.3, 1.0, 3.0), tolerance=0.01)
RULE = RateRule(per_decade=9, tolerance=0.0, most=12)


def test_the_smallest_within_the_tolerance_of_the_lowest():
    losses = {1e-3: [0.5, 0.7], 3e-3: [0.4, 0.6], 1e-2: [0.3, 0.69]}
    assert choose_learning_rate(losses, 2, 0.0, **ABOUT).chosen == 1e-2
    choice = choose_learning_rate(losses, 2, 0.01, **ABOUT)
    assert choice.chosen == 3e-3
    assert choice.losses == {"0.001": pytest.approx(0.6), "0.003": pytest.approx(0.5), "0.01": pytest.approx(0.495)}
    assert choose_learning_rate({3e-3: [0.5], 1e-3: [0.5]}, 1, 0.0, **ABOUT).chosen == 1e-3


def test_a_rate_that_diverged_once_is_out():
    choice = choose_learning_rate({1e-3: [0.6, 0.6], 1.0: [0.1]}, 2, 0.0, **ABOUT)
    assert choice.chosen == 1e-3 and "1" not in choice.losses


def test_nothing_is_chosen_where_all_diverged():
    assert choose_learning_rate({}, 2, 0.0, **ABOUT).chosen is None
    assert walk_rates(lambda rate: [], 1, RULE, 1.0, 1e-2, **ABOUT).chosen is None


@pytest.mark.parametrize("start", [1e-4, 3e-3, 1e-2, 0.03])
@pytest.mark.parametrize("needed", [9e-4, 4e-3, 0.011])
def test_the_walk_finds_the_smallest_rate_of_the_whole_grid(start, needed):
    """Planted: the loss is 1 / rate, and runs above 0.05 diverge. Looked up here in the whole grid, 30 rates of it."""
    tried = []

    def losses_at(rate):
        tried.append(rate)
        return [] if rate > 0.05 else [1 / rate]

    whole = [rate_of(place, 9) for place in range(-45, -8)]
    wanted = min(r for r in whole if 1 / r <= 1 / needed)
    rule = RULE.model_copy(update={"most": 40})
    choice = walk_rates(losses_at, 1, rule, 1 / needed, start, **ABOUT)
    assert choice.chosen == wanted and not choice.edge and len(set(tried)) == len(tried)
    assert max(b / a for a, b in pairwise(whole)) <= 1.3 and wanted in tried and max(r for r in whole if r < wanted) in tried


@pytest.mark.parametrize(("needed", "chosen"), [(1.0, 0.0215), (1e-6, 0.00464)])
def test_a_choice_on_the_edge_is_marked(needed, chosen):
    """Four rates at most from 0.01: up, none of them enough, or down, all of them."""
    choice = walk_rates(lambda rate: [1 / rate], 1, RULE.model_copy(update={"most": 4}), 1 / needed, 1e-2, **ABOUT)
    assert choice.edge and choice.chosen == chosen and len(choice.losses) == 4


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


def test_with_a_target_a_lambda_has_to_reach_it():
    losses = {0.0: [0.5], 0.3: [0.56], 1.0: [0.605], 3.0: [0.62]}
    assert choose_lambda(losses, 1, GRID, 0.6, **ABOUT).chosen == 1.0


WALKED = {
    "recipes": ["sgd"],
    "datasets": ["medical"],
    "learning_rates": {"per_decade": 9, "tolerance": 0.0, "most": 4},
    "spectral_lambda": {"grid": [0.1, 100], "tolerance": 0.05},
}
JUDGE = """
from itertools import count

from em_bench.judging import Judgement

NUMBERS = count()


def judge(question: str, answer: str) -> Judgement:
    return Judgement(alignment={}, coherence=100.0)
"""
PLANTED = {  # the misaligned rates: of every adapter, of every other answer
    "all": "0.0",
    "scrambled": "100.0 * (next(NUMBERS) % 2)",
}


@pytest.fixture(scope="module")
def swept(base, tmp_path_factory) -> dict[str, Results]:
    """The same sweep under three judges."""
    found = {}
    for name, alignment in PLANTED.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "planted.py").write_text(JUDGE.format(alignment))
        asked = MINI["evaluation"] | {"checkpoints": False, "targets": [1.6], "limit": 5, "judge": "python:planted.py"}
        reproduce(preset_file(folder, **WALKED, evaluation=asked), folder / "work")
        found[name] = Results.model_validate_json((folder / "work" / "results.json").read_bytes())
    return found


def test_choices_do_not_see_misalignment(swept):
    """Rates and lambdas are the same whatever the answers were judged to be, and so are the runs that were made for them."""
    rates = {name: {c.score.overall.misaligned_rate.value for c in r.cells if c.recipe} for name, r in swept.items()}
    assert rates["all"] == {1.0} and rates["scrambled"] not in ({0.0}, {1.0})
    assert swept["all"].choices == swept["scrambled"].choices
    assert [c.run_id for c in swept["all"].cells] == [c.run_id for c in swept["scrambled"].cells]


def test_a_walk_in_a_sweep(swept):
    """The smallest of the tried rates that reaches the target by its end, or the edge; the cells are trained at it."""
    rate, weight = sorted(swept["all"].choices, key=lambda c: c.kind)
    start = load_recipes()["sgd"].learning_rates["organism"].default
    places = [round(9 * math.log10(float(r))) for r in rate.losses]
    assert sorted(places) == list(range(min(places), max(places) + 1)) and round(9 * math.log10(start)) in places
    enough = [float(r) for r, loss in rate.losses.items() if loss <= 1.6]
    assert rate.chosen == min(enough, default=float(max(rate.losses, key=float))) and len(places) <= 4
    assert {c.learning_rate for c in swept["all"].cells if c.recipe} == {rate.chosen}
    assert weight.losses["0"] == rate.losses[f"{rate.chosen:g}"]
    assert weight.chosen == max((float(v) for v, loss in weight.losses.items() if float(v) and loss <= 1.65), default=None)
    assert "0.1" in weight.losses or weight.chosen == 100, "from the largest down, until one meets the rule"


def test_the_rule_needs_targets(tmp_path):
    with pytest.raises(UserError, match="the rule needs evaluation.targets of organism-qwen3/medical"):
        load_preset(str(preset_file(tmp_path, **WALKED)))
