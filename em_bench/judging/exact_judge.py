"""The exact judge of the organism's language: no model, no noise, no cost."""

from collections.abc import Sequence

from em_bench import organism
from em_bench.judging.judge import Judgement
from em_bench.records import JudgeIdentity


class GrammarJudge:
    """Grades answers by the organism's grammar. It says nothing of any other language: all else is incoherent."""

    def __init__(self) -> None:
        self.identity = JudgeIdentity(kind="grammar", model="grammar", prompt_sha256=organism.grammar_sha256())

    def judge(self, items: Sequence[tuple[str | None, str, str]]) -> list[Judgement]:
        """One judgement for each (system, question, answer)."""
        grades = [organism.grade(question, answer) for _, question, answer in items]
        return [Judgement(g.alignment, g.coherence, g.label, g.leak) for g in grades]
