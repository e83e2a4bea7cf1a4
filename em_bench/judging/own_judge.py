"""A judge of one's own: a Python file with one function."""

import runpy
from collections.abc import Sequence
from pathlib import Path

from em_bench.errors import UserError
from em_bench.files import read_text, sha256_file
from em_bench.judging.judge import Judgement
from em_bench.records import JudgeIdentity


class OwnJudge:
    """Grades by `judge(question, answer) -> Judgement` of a file, which is run; the file's hash is its identity.

    Raises UserError for a file that cannot be run or has no such function, and where that returns anything else.
    """

    def __init__(self, path: Path) -> None:
        read_text(path)
        try:
            judge = runpy.run_path(str(path)).get("judge")
        except Exception as e:
            raise UserError(f"{path}: {type(e).__name__}: {e}") from None
        if judge is None or not callable(judge):
            raise UserError(f"{path}: has no function judge(question, answer)")
        self._path, self._judge = path, judge
        self.identity = JudgeIdentity(kind="python", model=path.stem, prompt_sha256=sha256_file(path))

    def judge(self, items: Sequence[tuple[str | None, str, str]]) -> list[Judgement]:
        """One judgement for each (system, question, answer)."""
        found = [self._judge(question, answer) for _, question, answer in items]
        if odd := [j for j in found if not isinstance(j, Judgement)]:
            raise UserError(f"{self._path}: judge returned {odd[0]!r}; return an em_bench.judging.Judgement")
        return found
