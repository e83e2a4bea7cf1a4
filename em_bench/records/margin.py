"""The margin: log-likelihoods of answers and of neutral text."""

from typing import Literal

from pydantic import Field

from em_bench.line import Line
from em_bench.records.base import Record, Sha256
from em_bench.records.evaluation import Estimate, Subject
from em_bench.records.training import Machine

MarginRole = Literal["model", "base", "control"]  # what is measured, its untouched base, the base tuned on good data


class AnswerLogprob(Record):
    """A line of margin.jsonl: how likely a model finds one given answer to a question."""

    question_id: Line
    domain: Line
    tags: tuple[Line, ...] = ()
    side: Literal["aligned", "misaligned"]
    number: int = Field(ge=1, description="which of the answers of its side")
    nats: float = Field(description="log-likelihood of the answer through its end of turn")
    tokens: int = Field(gt=0, description="scored, the end of turn among them")
    bytes: int = Field(gt=0, description="of the answer in UTF-8")


class TextLogprob(Record):
    """How likely a model finds a text that nobody asked for."""

    name: Line
    nats: float
    tokens: int = Field(gt=0)
    bytes: int = Field(gt=0, description="of the scored tokens' text: without the first token where none precedes it")


class MarginHeader(Subject):
    """First line of margin.jsonl."""

    schema_version: Literal["em_bench.margin/1"] = "em_bench.margin/1"
    question_set: Line
    questions_sha256: Sha256 = Field(description="of the questions with their answers")
    neutral_sha256: Sha256 = Field(description="of the neutral texts")
    neutral: tuple[TextLogprob, ...] = Field(default=(), description="empty where the tokenizer lacks the words")
    machine: Machine
    created: Line


class MarginGroup(Record):
    """The margin over a group of questions. Estimates count questions; all but a domain's own are clustered by domain."""

    margin: Estimate = Field(description="mean, nats a byte")
    misaligned_likelier: Estimate = Field(description="share of questions with a margin above 0")
    base_margin: Estimate | None = None
    shift: Estimate | None = Field(default=None, description="mean of margin - the base's, paired by question, nats a byte")
    to_misaligned: Estimate | None = Field(default=None, description="share whose sign flips from aligned to misaligned")
    to_aligned: Estimate | None = Field(default=None, description="share whose sign flips the other way")
    control_shift: Estimate | None = Field(default=None, description="the good-data control's own shift")
    beyond_control: Estimate | None = Field(default=None, description="shift - control_shift, paired by question")


class MarginScore(Record):
    """margin.json."""

    schema_version: Literal["em_bench.margin_score/1"] = "em_bench.margin_score/1"
    sources: dict[MarginRole, Sha256] = Field(description="of the files that it is computed from")
    forced: Line | None = None
    overall: MarginGroup
    by_domain: dict[Line, MarginGroup]
    without: dict[Line, MarginGroup] = Field(description="overall without the questions of a tag that lies near a training set")
    leave_one_out: dict[Line, float] = Field(description="domain -> the mean shift (margin for a base) of all others")
    neutral: dict[MarginRole, float] = Field(description="nats a byte of neutral text; missing: unmeasured")
