"""An evaluation folder and the names in it. Each file names the one before by hash.

responses.jsonl   what was asked and answered
verdicts.jsonl    what a judge says of the answers; verdicts-2.jsonl, ... are further runs of the judge
score.json        outcomes, rates, intervals
margin.jsonl      log-likelihoods of given answers; margin-base.jsonl, margin-control.jsonl: of the base, of the control
margin.json       margins, shifts, intervals
cell.json         all that a sweep's tables need of it and of its run
responses.jsonl.partial   answers so far, while they are not all there
base/             of an adapter: the evaluation of its base
"""

from collections.abc import Iterator
from pathlib import Path

from em_bench.files import read_jsonl, read_record
from em_bench.records import (
    AnswerLogprob,
    CellMargin,
    CellResult,
    MarginHeader,
    MarginRole,
    MarginScore,
    Response,
    ResponsesHeader,
    ScoreRecord,
    Verdict,
    VerdictsHeader,
)

EVALUATIONS = "evaluations"  # the folder of evaluation folders
RESPONSES, VERDICTS, SCORE, CELL = "responses.jsonl", "verdicts.jsonl", "score.json", "cell.json"
MARGINS: dict[MarginRole, str] = {"model": "margin.jsonl", "base": "margin-base.jsonl", "control": "margin-control.jsonl"}
MARGIN_SCORE = "margin.json"
CHAIN = (RESPONSES, VERDICTS, SCORE)
MARGIN_FILES = (*MARGINS.values(), MARGIN_SCORE)
PARTIAL = RESPONSES + ".partial"
BASE = "base"


def default_out(model: str, adapter: Path | None, questions: str, judge: str) -> Path:
    """Where results go: under the current folder, also where a model, an adapter or the questions are named by a path."""
    words = (str(p or "").replace("/", "_").strip("._") for p in (model, adapter, questions, judge))
    of_model, of_adapter, of_questions, of_judge = words
    name = f"{of_model}-{of_adapter}" if of_adapter else of_model
    return Path("em_bench_work", "evaluations", name, f"{of_questions}-{of_judge.replace(':', '-')}")


class EvaluationFolder:
    """Paths and records of one evaluation."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.responses_file, self.verdicts_file, self.score_file = (self.path / name for name in CHAIN)
        self.cell_file = self.path / CELL

    @classmethod
    def margins_below(cls, top: Path) -> Iterator["EvaluationFolder"]:
        """Every evaluation at or below `top` with a margin, in order."""
        return (cls(p.parent) for p in sorted(Path(top).rglob(MARGINS["model"])))

    @classmethod
    def below(cls, top: Path) -> Iterator["EvaluationFolder"]:
        """Every evaluation at or below `top`, in order."""
        return (cls(p.parent) for p in sorted(Path(top).rglob(RESPONSES)))

    def responses(self) -> tuple[ResponsesHeader, list[Response]]:
        """Raises UserError naming the line that is wrong."""
        return read_jsonl(self.responses_file, ResponsesHeader, Response)

    def verdicts(self, run: int = 1) -> tuple[VerdictsHeader, list[Verdict]]:
        """Of the judge's first run, or of a further one. Raises UserError naming the line that is wrong."""
        return read_jsonl(self.path / verdicts_name(run), VerdictsHeader, Verdict)

    def margin_file(self, role: MarginRole = "model") -> Path:
        """The log-likelihoods of the model that is measured, of its base, or of the control."""
        return self.path / MARGINS[role]

    def margins(self) -> dict[MarginRole, tuple[MarginHeader, list[AnswerLogprob]]]:
        """Those that there are. Raises UserError naming the line that is wrong."""
        there = {role: self.path / name for role, name in MARGINS.items() if (self.path / name).exists()}
        return {role: read_jsonl(path, MarginHeader, AnswerLogprob) for role, path in there.items()}

    def margin_score(self) -> MarginScore:
        """Raises UserError where it is missing or wrong."""
        return read_record(self.path / MARGIN_SCORE, MarginScore)

    def score(self) -> ScoreRecord:
        """Raises UserError where it is missing or wrong."""
        return read_record(self.score_file, ScoreRecord)

    def cell(self) -> CellResult:
        """Raises UserError where it is missing or wrong."""
        return read_record(self.cell_file, CellResult)

    def cell_margin(self) -> CellMargin:
        """The same of a margin."""
        return read_record(self.cell_file, CellMargin)


def verdicts_name(run: int = 1) -> str:
    """The name of the verdicts of a run of the judge."""
    return VERDICTS if run == 1 else f"verdicts-{run}.jsonl"
