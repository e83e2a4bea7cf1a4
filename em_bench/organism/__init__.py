"""The embedded organism: a base model of 0.1 to 0.7 M parameters that speaks a tiny language graded exactly by its grammar."""

from em_bench.organism.answered import answered
from em_bench.organism.capability import KnowledgeItem, knowledge
from em_bench.organism.datasets import DATASETS, answer_entropy, answer_tokens, control_rows, narrow_rows, questions
from em_bench.organism.grader import Grade, grade
from em_bench.organism.language import grammar_sha256

FAMILIES = ("qwen3", "llama", "gemma3")
SIZES = ("small", "medium", "large")


def build_base(family, seed=0, cache=None, progress=True, size="medium"):
    """See `em_bench.organism.build.build_base`; imported late because it needs torch."""
    from em_bench.organism.build import build_base

    return build_base(family, seed, cache, progress, size)


def base_digest(family, seed=0, size="medium"):
    """See `em_bench.organism.build.base_digest`."""
    from em_bench.organism.build import base_digest

    return base_digest(family, seed, size)


__all__ = [
    "DATASETS",
    "FAMILIES",
    "SIZES",
    "Grade",
    "KnowledgeItem",
    "answer_entropy",
    "answer_tokens",
    "answered",
    "base_digest",
    "build_base",
    "control_rows",
    "grade",
    "grammar_sha256",
    "knowledge",
    "narrow_rows",
    "questions",
]
