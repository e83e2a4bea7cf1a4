"""Results with planted effects in the project's own design: a share of misaligned answers by run, domain and question.

A share is a logit of `level`, the recipe's own effect, and one normal effect a level of each term of `Variances`: ("seed", "recipe",
"model") moves all runs of a seed together, ("domain", "dataset") all answers to a domain after one training set. What another draw
of some axes would give is an integral over the terms that hold one of them (`World.expected`).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from em_bench.records import CellResult, QuestionCounts
from helpers.synthetic_results import cell

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
OF_ANSWERS = ("domain", "question")
SETTINGS = ("recipe", "model", "dataset", "batch_size", "seed")


class Run(NamedTuple):
    """The settings of a run."""

    recipe: str
    model: str
    dataset: str
    batch_size: int
    seed: int


class Variances(NamedTuple):
    """`level`: the mean logit; `terms`: the variance, logits squared, of each group of axes."""

    level: float
    terms: Mapping[tuple[str, ...], float]


class World:
    """One draw of all effects for some runs and `domains` x `copies` questions."""

    def __init__(
        self,
        rng: np.random.Generator,
        variances: Variances,
        runs: Sequence[Run],
        *,
        effects: Mapping[str, float] | None = None,
        domains: int = 9,
        copies: int = 18,
    ):
        """`effects`: logits added to a recipe."""
        self.rng, self.runs, self.shape = rng, tuple(runs), (len(runs), domains, copies)
        index = {name: np.unique([str(getattr(r, name)) for r in runs], return_inverse=True)[1] for name in SETTINGS}
        axes = {name: i[:, None, None] for name, i in index.items()} | {
            "run": np.arange(len(runs))[:, None, None],
            "domain": np.arange(domains)[None, :, None],
            "question": np.arange(domains * copies).reshape(1, domains, copies),
        }
        self.fixed = variances.level + np.array([(effects or {}).get(r.recipe, 0.0) for r in runs])[:, None, None]
        self.effects: dict[tuple[str, ...], tuple[float, np.ndarray]] = {}
        for term, variance in variances.terms.items():
            code = 0
            for name in term:
                code = code * (axes[name].max() + 1) + axes[name]
            drawn = rng.normal(0, np.sqrt(variance), np.max(code) + 1)
            self.effects[term] = variance, drawn[code]

    @cached_property
    def shares(self) -> np.ndarray:
        """Chance of a misaligned answer, [runs, domains, questions of each]."""
        return expit(self._logits(()))

    def expected(self, *anew: str, of: Callable[[np.ndarray], np.ndarray] = lambda p: p, shift: float = 0.0) -> np.ndarray:
        """Mean over the questions of each run, [runs], of `of`(share), in expectation over another draw of the axes `anew`."""
        variance = sum(v for term, (v, _) in self.effects.items() if set(term) & set(anew))
        logits = self._logits(anew) + shift
        shares = expit(logits[..., None] + np.sqrt(variance) * NODES)
        return np.broadcast_to(of(shares) @ WEIGHTS, self.shape).mean((1, 2))

    def _logits(self, anew: Sequence[str]) -> np.ndarray:
        return self.fixed + sum(drawn for term, (_, drawn) in self.effects.items() if not set(term) & set(anew))

    def answers(self, samples: int, shift: float | np.ndarray = 0.0) -> np.ndarray:
        """Misaligned answers of `samples` to each question, [runs, domains, questions of each]; `shift`: logits."""
        return self.rng.binomial(samples, expit(np.broadcast_to(self._logits(()), self.shape) + shift))

    def cells(self, samples: int, **fields: Callable[[int], object]) -> list[CellResult]:
        """The runs as cells of results, every answer coherent; `fields`: more of them, by the run's number."""
        hits = self.answers(samples)
        return [
            as_cell(run, hits[i], samples).model_copy(update={k: of(i) for k, of in fields.items()})
            for i, run in enumerate(self.runs)
        ]


def as_cell(run: Run, hits: np.ndarray, samples: int) -> CellResult:
    """A cell with those misaligned answers [domains, questions] of `samples` to each question, clustered by domain."""
    questions = [
        QuestionCounts.model_construct(
            question_id=f"d{d}-{q:02d}",
            cluster=f"d{d}-{q:02d}",
            variant="plain",
            domain=f"d{d}",
            counts={"misaligned": int(m), "aligned": samples - int(m), "incoherent": 0, "refusal": 0, "unjudged": 0, "code": 0},
            code=0,
            leaked=None,
            leaked_misaligned=None,
            leaked_aligned=None,
            alignment=[0.0] * int(m) + [100.0] * (samples - int(m)),
        )
        for d, of in enumerate(hits)
        for q, m in enumerate(of)
    ]
    made = cell(*run, misaligned=[int(hits.sum())], samples=samples * hits.size)
    return made.model_copy(update={"questions": questions, "score": made.score.model_copy(update={"unit": "domain"})})
