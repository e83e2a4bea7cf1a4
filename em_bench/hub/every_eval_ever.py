"""Results as files of Every Eval Ever (schema 0.3.0): numbers, judge and settings of an evaluation; no question and no answer."""

import hashlib
import re
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import em_bench
from em_bench.data.pins import load_pins
from em_bench.data.questions import describe
from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.files import sha256_file
from em_bench.hub.numbers import judge_name, rates
from em_bench.records import Estimate, ResponsesHeader, VerdictsHeader

SCHEMA = "0.3.0"
COLLECTION = "em_bench"
MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
METRICS = {
    "of_asked": ("misaligned of asked", "misaligned / all answers asked for, refused, incoherent and unjudged ones too", True),
    "of_coherent": ("misaligned of coherent", "misaligned / (misaligned + aligned)", True),
    "coherent": ("coherent", "(misaligned + aligned) / (misaligned + aligned + incoherent)", False),
}


class Publisher(NamedTuple):
    """Who says it, of which model: `model` is its OWNER/NAME, `relationship` one of the schema's words."""

    organisation: str
    model: str
    relationship: str = "first_party"


RELATIONSHIPS = ("first_party", "third_party", "collaborative", "other")


def export_eee(evaluation: Path, publisher: Publisher, to: Path, now: float | None = None) -> tuple[Path, dict[str, Any]]:
    """The path below `to` and the content of the file of one judged evaluation. Raises UserError for what is none."""
    if not MODEL_ID.fullmatch(publisher.model):
        raise UserError(f"--model-id {publisher.model}: is no OWNER/NAME; say under which name others find the model")
    at = EvaluationFolder(evaluation)
    if not (at.score_file.is_file() and at.verdicts_file.is_file()):
        raise UserError(f"{evaluation}: no judged evaluation; name a folder with responses, verdicts and score.json")
    header, said, score = at.responses()[0], at.verdicts()[0], at.score()
    found, stamp = rates(at, header.question_set), f"{time.time() if now is None else now:.0f}"
    results = [
        _result(header, said, name, what, value, low_is_good)
        for field, (name, what, low_is_good) in METRICS.items()
        if (value := getattr(found, field)).value is not None
    ]
    if not results:
        raise UserError(f"{evaluation}: nothing is judged, so there is no number to export")
    owner, _, name = publisher.model.partition("/")
    # A version 4 in form, and the same whenever the same verdicts are exported.
    id = uuid.UUID(bytes=hashlib.sha256(f"{publisher.model}/{sha256_file(at.verdicts_file)}".encode()).digest()[:16], version=4)
    record = {
        "schema_version": SCHEMA,
        "evaluation_id": f"{COLLECTION}/{publisher.model}/{stamp}",
        "evaluation_timestamp": header.created,
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "em_bench",
            "source_type": "evaluation_run",
            "source_organization_name": publisher.organisation,
            "evaluator_relationship": publisher.relationship,
        },
        "eval_library": {
            "name": "em_bench",
            "version": em_bench.__version__,
            "additional_details": {"harness": header.harness, "convention": score.convention, "unit": score.unit},
        },
        "model_info": _model(header, publisher.model),
        "evaluation_results": results,
    }
    return to / "data" / COLLECTION / owner / name / f"{id}.json", record


def _model(header: ResponsesHeader, id: str) -> dict[str, Any]:
    details = {
        "deployment_type": "externally_managed" if header.served and header.served.host != "local" else "self_deployed",
        "model_availability": "unknown",
        "em_bench_name": header.model,
    }
    if header.base:
        details |= {"base": header.base.name, "base_revision": header.base.revision}
    if header.adapter_sha256:
        details |= {"adapter_sha256": header.adapter_sha256, "step": "end" if header.step is None else str(header.step)}
    if header.dtype:
        details["dtype"] = header.dtype
    return {"name": id.partition("/")[2], "id": id, "developer": id.partition("/")[0], "additional_details": details}


def _result(
    header: ResponsesHeader, said: VerdictsHeader, name: str, what: str, e: Estimate, low_is_good: bool
) -> dict[str, Any]:
    metric = name.replace(" ", "_")
    score: dict[str, Any] = {"score": e.value}
    if e.low is not None and e.high is not None:
        interval = {
            "lower": e.low,
            "upper": e.high,
            "confidence_level": 0.95,
            "method": "clustered, Wilson form with Student's t",
        }
        score["uncertainty"] = {"confidence_interval": interval, "num_samples": e.n}
        if e.stderr is not None:
            score["uncertainty"]["standard_error"] = {"value": e.stderr, "method": "analytic"}
    g = header.generation
    return {
        "evaluation_result_id": f"{header.question_set}/{metric}",
        "evaluation_name": f"em_bench/{header.question_set}",
        "source_data": _source(header),
        "metric_config": {
            "evaluation_description": what,
            "metric_id": f"em_bench.{metric}",
            "metric_name": name,
            "metric_kind": "rate",
            "metric_unit": "proportion",
            "lower_is_better": low_is_good,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
            **_judges(said),
        },
        "score_details": score,
        "generation_config": {
            "generation_args": {"temperature": g.temperature, "top_p": g.top_p, "top_k": g.top_k, "max_tokens": g.max_new_tokens},
            "additional_details": {"samples_a_question": str(g.samples)},
        },
    }


def _judges(said: VerdictsHeader) -> dict[str, Any]:
    if said.judge.kind not in ("openai", "local"):
        return {"additional_details": {"judge": judge_name(said), "judge_sha256": said.judge.prompt_sha256}}
    theirs = said.judge.kind == "openai"
    details = {"deployment_type": "externally_managed" if theirs else "self_deployed", "model_availability": "unknown"}
    model = {"name": said.judge.model, "id": said.judge.model, "additional_details": details}
    settings = {k: str(v) for k, v in said.judge.decoding.items()}
    return {
        "llm_scoring": {
            "judges": [{"model_info": model, "additional_details": settings}],
            "input_prompt": f"prompts of sha256 {said.judge.prompt_sha256}, by name in tasks/judge_prompts of em_bench",
        }
    }


def _source(header: ResponsesHeader) -> dict[str, Any]:
    about = {"questions_sha256": header.questions_sha256}
    try:
        given = describe(header.question_set)
    except UserError:
        given = None
    pins = [load_pins().pins[p] for p in given.pins] if given else []
    where = sorted({f"https://github.com/{p.repository}" for p in pins if p.repository})
    if where:
        return {"dataset_name": header.question_set, "source_type": "url", "url": where, "additional_details": about}
    return {"dataset_name": header.question_set, "source_type": "other", "additional_details": about}
