"""The search for a scale, on planted functions."""

import math

import pytest

from em_bench.harness.scale_search import smallest_scale


def search(f, target, **options):
    asked = []

    def value(scale):
        assert scale not in asked
        asked.append(scale)
        return f(scale)

    settings = {"tolerance": 1e-6, "largest": 1.0, "step": 0.1, "most": 100} | options
    return smallest_scale(value, target, **settings), asked


@pytest.mark.parametrize("root", [0.003, 0.1, 0.25, 1 / 3, 0.55, 0.999, 1.0])
@pytest.mark.parametrize("shape", [lambda x: x, lambda x: x / 10 + x**3, math.exp, lambda x: math.tanh(50 * x)])
def test_monotone(root, shape):
    """Straight, nearly flat at the root, curved, steep."""
    found, asked = search(lambda s: 1 - shape(s - root), 1 - shape(0.0))
    assert found.verdict == "reached" and abs(shape(found.scale - root) - shape(0.0)) <= 1e-6
    assert len(asked) <= 40 and min(asked) == 0


def test_a_jump_over_the_target():
    """No scale is within the tolerance: the nearest is at the jump."""
    found, asked = search(lambda s: 1.0 if s < 0.37 else 0.2, 0.5)
    assert found.verdict == "nearest" and found.scale == pytest.approx(0.37, abs=1e-6) and len(asked) <= 60


def test_the_first_of_several_falls():
    """cos falls through 1/2 at 1/12, 7/12, ...: the first counts, though the whole adapter is there too."""
    found, asked = search(lambda s: math.cos(4 * math.pi * s), 0.5)
    assert found.verdict == "reached" and found.scale == pytest.approx(1 / 12, abs=1e-6) and max(asked) <= 0.1


def test_a_loss_that_rises_again():
    """The least is within, between two points of the scan; the whole adapter is far above the target."""
    parabola = lambda s: (s - 0.55) ** 2  # noqa: E731
    found, _ = search(parabola, 0.0004)
    assert found.verdict == "reached" and found.scale == pytest.approx(0.53, abs=1e-4)
    never, asked = search(parabola, -0.001)
    assert never.verdict == "never" and never.scale is None and min(map(parabola, asked)) < 1e-4


def test_ends():
    assert search(lambda s: 1 - s, 0.0)[0] == ("reached", 1.0)
    assert search(lambda s: 1 - s, -0.5)[0] == ("never", None)
    assert search(lambda s: 1 - s, 1.0)[0] == ("already", None)
    assert search(lambda s: 1 - s, -0.5, largest=2.0)[0].scale == pytest.approx(1.5, abs=1e-6)
    assert search(lambda s: 1 - s, 0.74, largest=0.25, step=0.1)[0] == ("never", None)
    assert search(lambda s: 1 - s, 0.76, largest=0.25, step=0.1)[0].scale == pytest.approx(0.24, abs=1e-6)


def test_evaluations_are_bounded_and_the_nearest_is_taken():
    steps = lambda s: 1 - math.floor(8 * s) / 8  # noqa: E731
    found, asked = search(steps, 0.83, most=9, step=0.25, tolerance=0.01)
    assert found.verdict == "nearest" and len(asked) == 9 and found.scale == max(s for s in asked if s < 0.25)
    never, asked = search(lambda s: 1 - s, 0.1, most=5)
    assert never.verdict == "never" and len(asked) == 5


def test_a_loss_that_is_no_number_at_a_large_scale():
    found, _ = search(lambda s: 1 - s if s < 0.7 else math.inf, 0.5, largest=1.0)
    assert found.scale == pytest.approx(0.5)
