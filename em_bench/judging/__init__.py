"""Responses to verdicts. A judge is a pure function of (question, answer), given its identity."""

from em_bench.judging.exact_judge import GrammarJudge
from em_bench.judging.judge import NONE, Item, Judge, Judgement, judge_responses, verdicts_of, write_verdicts
from em_bench.judging.make import make_judge
from em_bench.judging.options import JudgeOptions

__all__ = [
    "NONE",
    "GrammarJudge",
    "Item",
    "Judge",
    "JudgeOptions",
    "Judgement",
    "judge_responses",
    "make_judge",
    "verdicts_of",
    "write_verdicts",
]
