"""Verdicts to outcomes, rates and intervals: the only place where an outcome or a metric is decided."""

from em_bench.scoring.agreement import Agreement, agreement
from em_bench.scoring.breakdown import broken_down, misalign_at
from em_bench.scoring.coherence import BROKEN, REFUSING, cannot_tell
from em_bench.scoring.intervals import mean_estimate, rate_estimate
from em_bench.scoring.levels import Counts, Measured, difference, level
from em_bench.scoring.margin import (
    MarginPoint,
    MarginTable,
    margin_estimate,
    margin_over_seeds,
    margins,
    score_margin,
    shift_at_loss,
)
from em_bench.scoring.matched_loss import AtLoss, Point, at_loss, between, by_cluster
from em_bench.scoring.metrics import metrics, misaligned_of_asked, score, score_file
from em_bench.scoring.noise import JudgeNoise, judge_noise
from em_bench.scoring.outcomes import CONVENTIONS, Convention, convention_of, counted_alignment, outcome
from em_bench.scoring.questions import question_counts
from em_bench.scoring.rates import RATES, coherent_rate, of_asked, outcome_counts, refused
from em_bench.scoring.unjudged import nothing_judged, unjudged_text

__all__ = [
    "BROKEN",
    "CONVENTIONS",
    "RATES",
    "REFUSING",
    "Agreement",
    "AtLoss",
    "Convention",
    "Counts",
    "JudgeNoise",
    "MarginPoint",
    "MarginTable",
    "Measured",
    "Point",
    "agreement",
    "at_loss",
    "between",
    "broken_down",
    "by_cluster",
    "cannot_tell",
    "coherent_rate",
    "convention_of",
    "counted_alignment",
    "difference",
    "judge_noise",
    "level",
    "margin_estimate",
    "margin_over_seeds",
    "margins",
    "mean_estimate",
    "metrics",
    "misalign_at",
    "misaligned_of_asked",
    "nothing_judged",
    "of_asked",
    "outcome",
    "outcome_counts",
    "question_counts",
    "rate_estimate",
    "refused",
    "score",
    "score_file",
    "score_margin",
    "shift_at_loss",
    "unjudged_text",
]
