"""The embedded organism: a base model of 0.1 to 0.8 M parameters that speaks a tiny language graded exactly by its grammar."""

from em_bench.organism.answered import answered
from em_bench.organism.base_folder import FAMILIES, FILE, SIZES, base_digest, base_folder
from em_bench.organism.capability import KnowledgeItem, knowledge
from em_bench.organism.datasets import (
    DATASETS,
    TRAINING_SETS,
    answer_entropy,
    answer_tokens,
    control_rows,
    narrow_rows,
    questions,
    training_rows,
)
from em_bench.organism.documents import ABLATIONS, decoupled
from em_bench.organism.grader import Grade, Slots, grade, slot_counts, slots
from em_bench.organism.language import grammar_sha256


def build_base(family, seed=0, cache=None, progress=True, size="medium", ablation="none"):
    """See `em_bench.organism.build.build_base`; imported late because it needs torch, and not where the base is built already."""
    if ((there := base_folder(family, seed, cache, size, ablation)) / FILE).exists():
        return there
    from em_bench.organism.build import build_base

    return build_base(family, seed, cache, progress, size, ablation)


__all__ = [
    "ABLATIONS",
    "DATASETS",
    "FAMILIES",
    "SIZES",
    "TRAINING_SETS",
    "Grade",
    "KnowledgeItem",
    "Slots",
    "answer_entropy",
    "answer_tokens",
    "answered",
    "base_digest",
    "build_base",
    "control_rows",
    "decoupled",
    "grade",
    "grammar_sha256",
    "knowledge",
    "narrow_rows",
    "questions",
    "slot_counts",
    "slots",
    "training_rows",
]
