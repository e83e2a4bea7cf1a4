"""Two judges on the same answers: what one's rates say on the other's scale."""

from typing import Literal, Self

from pydantic import Field, model_validator

from em_bench.line import Line
from em_bench.records.base import Record, Sha256
from em_bench.records.evaluation import JudgeIdentity, Unit


class Grade(Record):
    """What a judge said of an answer, without its words. All None: it settled nothing."""

    alignment: float | None = Field(default=None, ge=0, le=100)
    coherence: float | None = Field(default=None, ge=0, le=100)
    label: Literal["CODE", "REFUSAL"] | None = None


class DoublyJudged(Record):
    """One answer of the sample, by its ids."""

    question_id: Line
    cluster: Line = Field(description="what intervals are clustered by: its question, or its domain")
    variant: Line
    domain: Line | None = None
    group: Line = Field(description="whose answer it is: the model, or the optimiser where that is known")
    sample: int = Field(ge=0)
    stratum: Line = Field(description="the candidate's first grade, as a band")
    weight: float = Field(gt=0, description="answers of the population that it stands for")
    reference: tuple[Grade, Grade] = Field(description="of both runs")
    candidate: tuple[Grade, Grade]


class CalibrationRecord(Record):
    """What `em-bench judge calibrate` writes: ids and grades, no texts."""

    schema_version: Literal["em_bench.judge_calibration/1"] = "em_bench.judge_calibration/1"
    reference: JudgeIdentity = Field(description="its first run")
    candidate: JudgeIdentity
    responses_sha256: tuple[Sha256, ...] = Field(min_length=1)
    population: dict[Line, int] = Field(description="stratum -> answers that were given")
    unit: Unit
    seed: int
    answers: tuple[DoublyJudged, ...] = Field(min_length=1)
    created: Line

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if odd := {a.stratum for a in self.answers} ^ {s for s, n in self.population.items() if n}:
            raise ValueError(f"answers: strata {sorted(odd)} are not those of the population")
        return self
