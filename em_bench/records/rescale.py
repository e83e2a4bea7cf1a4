"""An adapter whose update was multiplied by a scale."""

from typing import Literal

from pydantic import Field

from em_bench.line import Identifier, Line
from em_bench.records.base import Record, Sha256
from em_bench.records.evaluation import Estimate, Generation, JudgeIdentity
from em_bench.records.training import BaseRef, DataRef


class Asked(Record):
    """What decides an answer and its verdict, beside the model."""

    question_set: Line
    questions_sha256: Sha256
    generation: Generation
    judge: JudgeIdentity


class RescaleGoal(Record):
    """What a scale is looked for by: the same goal and adapter give the same scale."""

    kind: Literal["loss", "coherence"] = Field(description="held-out narrow loss in nats, or coherent share of the answers")
    target: float
    tolerance: float = Field(gt=0, description="how far from the target a value may lie, in its unit")
    largest: float = Field(gt=0, description="scales from 0 to this one are looked at")
    most: int = Field(gt=0, description="evaluations that may be made")
    dtype: Line = Field(description="that the model is run in")
    dataset: DataRef | None = Field(default=None, description="whose held-out rows the narrow loss is of")
    asked: Asked | None = Field(default=None, description="where coherence is looked for")


class ScaleTried(Record):
    """One evaluation of a search."""

    scale: float = Field(ge=0)
    narrow_loss: float | None = None
    coherence: Estimate | None = None


class ScaleSearch(Record):
    """How a scale was found. `reached`: within the tolerance; `nearest`: the evaluations were used up first; `never`: no scale that
    was looked at has so little; `already`: the base itself has."""

    goal: RescaleGoal
    verdict: Literal["reached", "nearest", "never", "already"]
    tried: list[ScaleTried] = Field(description="in the order of the scales; 0 is the base")


class RescaleRecord(Record):
    """rescale.json: the adapter beside it is another one with its update B A times `scale`; every other tensor is the same."""

    schema_version: Literal["em_bench.rescale/1"] = "em_bench.rescale/1"
    run_id: Identifier | None = Field(default=None, description="of the run that the other adapter is of; None: of none")
    step: int | None = Field(default=None, description="the checkpoint that it is; None is the end of training")
    source_sha256: Sha256 = Field(description="of the other adapter's adapter_model.safetensors")
    base: BaseRef
    scale: float | None = Field(gt=0, description="None: none was found, and there is no adapter")
    adapter_sha256: Sha256 | None = Field(default=None, description="of adapter_model.safetensors")
    norm_before: float | None = Field(description="Frobenius norm of the other adapter's update")
    norm_after: float | None = Field(default=None, description="of this one's")
    narrow_loss: float | None = Field(default=None, description="of this one, where measured")
    coherence: Estimate | None = Field(default=None, description="of this one, where it was looked for")
    search: ScaleSearch | None = Field(default=None, description="None: one of the scales that a search looks at")
