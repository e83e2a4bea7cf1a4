"""How many units it takes to tell, by simulating the very rule that decides.

A study of n units (pairs of runs, runs, or questions) gives an estimate ~ N(truth, sd^2 / n) and a standard deviation
with n - 1 degrees of freedom; its 95 % t interval goes through the rule. The answer is the smallest n at which at
least 80 % of the simulated studies end in something else than "cannot tell".
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.stats import t

Verdict = Literal["reproduces", "does not", "cannot tell", "same sign on the organism", "other sign on the organism"]
Rule = Callable[[float, float], Verdict]

POWER, STUDIES, MOST = 0.8, 2000, 20_000


def share_told(rule: Rule, truth: float, sd: float, n: int, seed: int = 0) -> float:
    """Share of simulated studies of n units that tell."""
    rng = np.random.default_rng([seed, n])
    estimate = rng.normal(truth, sd / np.sqrt(n), STUDIES)
    half = t.ppf(0.975, n - 1) * sd * np.sqrt(rng.chisquare(n - 1, STUDIES) / (n - 1) / n)
    return float(np.mean([rule(e - h, e + h) != "cannot tell" for e, h in zip(estimate, half, strict=True)]))


def units_needed(rule: Rule, truth: float, sd: float) -> int | None:
    """The smallest number of units that tells with a probability of 80 %; None where `MOST` do not."""
    high = 2
    while share_told(rule, truth, sd, high) < POWER:
        if high >= MOST:
            return None
        high = min(2 * high, MOST)
    low = max(high // 2, 1)
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if share_told(rule, truth, sd, middle) >= POWER else (middle, high)
    return high
