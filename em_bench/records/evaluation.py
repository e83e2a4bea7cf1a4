"""An evaluation: questions, answers, verdicts, score."""

from typing import Literal

from pydantic import Field

from em_bench.line import Identifier, Line
from em_bench.records.base import Record, Sha256
from em_bench.records.training import BaseRef


class Question(Record):
    """One evaluation question."""

    id: Line = Field(description="unique within its set")
    cluster: Line = Field(description="the question that its variants share")
    variant: Line = Field(description="plain, json, template, trigger-<dataset>")
    domain: Line
    system: str | None = None
    text: str


class AnsweredQuestion(Record):
    """A question, asked plainly, with aligned and misaligned answers that a model is not asked for but shown."""

    id: Line
    domain: Line
    tags: tuple[Line, ...] = ()
    text: str
    aligned: tuple[str, ...] = Field(min_length=1)
    misaligned: tuple[str, ...] = Field(min_length=1)


class Generation(Record):
    """How responses were sampled."""

    samples: int = Field(gt=0, description="responses a question")
    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(ge=0, description="0 is greedy")
    top_p: float = 1.0
    top_k: int = Field(default=0, description="0 is off")
    seed: int | None = None


class Canary(Record):
    """Proof that the adapter changes the model, on a fixed prompt."""

    max_logit_change: float | None = Field(
        default=None, gt=0, exclude_if=lambda v: v is None, description="largest absolute change of a logit, of a local model"
    )
    max_logprob_change: float | None = Field(
        default=None,
        gt=0,
        exclude_if=lambda v: v is None,
        description="of a log-probability (nats), through a server; without either, a server that gives none changed its text",
    )


class Served(Record):
    """The server that ran a model."""

    engine: Line = Field(description="its name and version where em_bench started it, else endpoint")
    host: Line = Field(description="of a public address; local for any other")
    name: Line = Field(description="under which it offers the model")
    refused: Line | None = Field(default=None, description="settings that it does not take: they are what it makes them")


class Subject(Record):
    """Which model a file is about."""

    schema_version: str
    model: Line
    run_id: Identifier | None = None
    step: int | None = Field(default=None, description="checkpoint step; None is the end of training")
    adapter_sha256: Sha256 | None = Field(default=None, description="None: the base itself")
    adapter_config_sha256: Sha256 | None = Field(default=None, description="of adapter_config.json: rank, alpha, targets")
    scale: float | None = Field(
        default=None, exclude_if=lambda v: v is None, description="the adapter is that of the run times this (em-bench rescale)"
    )
    base: BaseRef | None = Field(default=None, description="which base exactly; None in files of other harnesses")
    dtype: Line | None = Field(default=None, description="that the model was run in")
    served: Served | None = Field(default=None, exclude_if=lambda v: v is None)
    forced: Line | None = Field(default=None, description="why the adapter does not belong to this base; --force overrode it")
    canary: Canary | None = None
    harness: Line = Field(description="name and version")


class ResponsesHeader(Subject):
    """First line of responses.jsonl."""

    schema_version: Literal["em_bench.responses/1"] = "em_bench.responses/1"
    question_set: Line
    questions_sha256: Sha256
    generation: Generation
    created: Line
    withheld: Sha256 | None = Field(
        default=None,
        exclude_if=lambda v: v is None,
        description="of the author's own file: the texts below are hashes, since the questions may not be republished",
    )


class Response(Record):
    """One sampled answer."""

    question_id: Line
    cluster: Line
    variant: Line
    sample: int = Field(ge=0)
    system: str | None = None
    question: str
    answer: str = Field(description="as judged: thinking blocks stripped")
    thinking: str | None = Field(default=None, description="thinking that came although it was off")


class JudgeIdentity(Record):
    """Everything that determines a judge's verdicts; its digest keys the verdict cache."""

    kind: Literal["grammar", "openai", "local", "python", "none"]
    model: Line
    prompt_sha256: Sha256 = Field(description="of the prompts, the grammar or the file; of nothing where no judge is asked")
    decoding: dict[Line, bool | int | float | Line | None] = Field(default_factory=dict)


class VerdictsHeader(Record):
    """First line of verdicts.jsonl."""

    schema_version: Literal["em_bench.verdicts/1"] = "em_bench.verdicts/1"
    responses_sha256: Sha256
    judge: JudgeIdentity
    forced: Line | None = Field(default=None, description="of the responses")
    created: Line


NOT_ASKED = "no judge was asked"  # the error of every verdict of the judge `none`


class Verdict(Record):
    """What a judge said of one response. Scores are None where it gave none."""

    question_id: Line
    cluster: Line
    variant: Line
    sample: int = Field(ge=0)
    alignment: float | None = Field(default=None, ge=0, le=100)
    coherence: float | None = Field(default=None, ge=0, le=100)
    label: Literal["CODE", "REFUSAL"] | None = None
    leak: bool | None = Field(default=None, description="drags in the training domain; None: not asked")
    error: Line | None = Field(default=None, description="why there is no score")


Unit = Literal["question", "domain"]  # the clusters of a question set's intervals: domains where its questions are near-copies
Outcome = Literal["refusal", "incoherent", "misaligned", "aligned", "unjudged", "code"]


class Estimate(Record):
    """A ratio or mean with its denominator and 95 % interval, clustered; value None where n is 0."""

    value: float | None
    low: float | None
    high: float | None
    stderr: float | None
    n: int = Field(ge=0, description="responses in the denominator")
    clusters: int = Field(ge=0, description="questions, or domains, in the denominator")


class Metrics(Record):
    """All numbers of one group of responses."""

    counts: dict[Outcome, int] = Field(description="every outcome, zeros included")
    code: int = Field(ge=0, description="responses labelled CODE, whatever their outcome")
    misaligned_rate: Estimate = Field(description="misaligned / (misaligned + aligned)")
    misaligned_rate_unleaked: Estimate | None = Field(default=None, description="the same without leaked responses")
    mean_alignment: Estimate = Field(description="0-100, over misaligned + aligned")
    coherent_rate: Estimate = Field(description="(misaligned + aligned) / (misaligned + aligned + incoherent)")
    refusal_rate: Estimate = Field(description="of judged responses")
    code_rate: Estimate = Field(description="of judged responses")
    unjudged_rate: Estimate = Field(description="of all responses")
    leak_rate: Estimate | None = Field(default=None, description="of responses asked about leakage")


class ScoreRecord(Record):
    """score.json."""

    schema_version: Literal["em_bench.score/1"] = "em_bench.score/1"
    verdicts_sha256: Sha256
    convention: Literal["code_as_zero", "exclude_code"]
    unit: Unit = Field(
        default="question", exclude_if=lambda v: v == "question", description="what the intervals are clustered by"
    )
    overall: Metrics
    by_variant: dict[Line, Metrics]
    by_domain: dict[Line, Metrics] = Field(
        default_factory=dict, exclude_if=lambda v: not v, description="shown by `em-bench score`, not written by evaluations"
    )
    without_near: Metrics | None = Field(
        default=None, exclude_if=lambda v: v is None, description="without questions in the domain of a training set; likewise"
    )
    misalign_at: dict[int, Estimate] = Field(
        default_factory=dict,
        exclude_if=lambda v: not v,
        description="k -> share of questions misaligned at least once in k; likewise",
    )
    forced: Line | None = Field(default=None, description="of the responses: why the adapter does not belong to its base")
    narrow_loss: float | None = None
    capability: dict[Line, float] | None = Field(default=None, description="task/metric -> value, from lm-eval")
    thinking: int | None = Field(
        default=None, description="answers that came with thinking, although it was off; it was not judged"
    )
