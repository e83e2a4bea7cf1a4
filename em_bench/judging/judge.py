"""What every judge is, and how its judgements of a responses file become a verdicts file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

from em_bench import files
from em_bench.errors import UserError
from em_bench.evaluation_folder import VERDICTS
from em_bench.judging.prompts import Aspect
from em_bench.line import one_line
from em_bench.machine import utc_now
from em_bench.records import NOT_ASKED, JudgeIdentity, Response, ResponsesHeader, Sha256, Verdict, VerdictsHeader


class Item(NamedTuple):
    """What a judge gets to see of a response. Today's judges leave `system` out, as Betley et al. do."""

    system: str | None
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict without the ids of its response; the fields are those of `records.Verdict`."""

    alignment: float | None = None
    coherence: float | None = None
    label: Literal["CODE", "REFUSAL"] | None = None
    leak: bool | None = None
    error: str | None = None


def judgement_of(said: Mapping[Aspect, float | str | bool | Exception]) -> Judgement:
    """From what was said of each aspect; an exception is why it is not settled."""
    values: dict[str, Any] = {
        "label" if isinstance(v, str) else aspect: v for aspect, v in said.items() if not isinstance(v, Exception)
    }
    errors = [f"{aspect}: {v}" for aspect, v in said.items() if isinstance(v, Exception)]
    return Judgement(**values, error=one_line("; ".join(errors), 600) or None)


class Judge(Protocol):
    """A pure function of (question, answer), given its identity."""

    @property
    def identity(self) -> JudgeIdentity:
        """What its verdicts are of."""
        ...

    def judge(self, items: Sequence[tuple[str | None, str, str]]) -> list[Judgement]:
        """One judgement for each (system, question, answer), in order. What cannot be settled carries an `error`."""
        ...


NONE: Final = "none"


class NoJudge:
    """Leaves everything unjudged: the answers are kept, for `em-bench rejudge` or for a person."""

    def __init__(self) -> None:
        self.identity = JudgeIdentity(kind=NONE, model=NONE, prompt_sha256=files.digest(None))

    def judge(self, items: Sequence[tuple[str | None, str, str]]) -> list[Judgement]:
        """As many times that nobody was asked."""
        return [Judgement(error=NOT_ASKED) for _ in items]


def verdicts_of(responses: Sequence[Response], judge: Judge) -> list[Verdict]:
    """The verdicts on the responses, in order, all judged in one batch."""
    judgements = judge.judge([Item(r.system, r.question, r.answer) for r in responses])
    return [
        Verdict(question_id=r.question_id, cluster=r.cluster, variant=r.variant, sample=r.sample, **asdict(j))
        for r, j in zip(responses, judgements, strict=True)
    ]


def write_verdicts(
    path: Path, responses_sha256: Sha256, judge: JudgeIdentity, verdicts: Sequence[Verdict], forced: str | None = None
) -> None:
    """Write verdicts.jsonl atomically; its header names the responses and the judge, and says what was forced about them."""
    header = VerdictsHeader(responses_sha256=responses_sha256, judge=judge, forced=forced, created=utc_now())
    files.write_jsonl(path, header, verdicts)


def judge_responses(responses: Path, judge: Judge, out: Path | None = None) -> list[Verdict]:
    """Judge a responses.jsonl and write `out` (default: verdicts.jsonl beside it). Raises UserError for a bad file."""
    header, rows = files.read_jsonl(responses, ResponsesHeader, Response)
    if header.withheld:
        raise UserError(
            f"{responses}: holds hashes in the place of its texts; judge the author's own file, sha256 {header.withheld}"
        )
    sha256 = files.sha256_file(responses)
    verdicts = verdicts_of(rows, judge)
    write_verdicts(out or Path(responses).with_name(VERDICTS), sha256, judge.identity, verdicts, header.forced)
    return verdicts
