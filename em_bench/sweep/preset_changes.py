"""A preset changed by what the command line asks: another judge, other seeds, another base."""

from pathlib import Path

from pydantic import ValidationError

from em_bench.data.models import folder_model
from em_bench.errors import UserError
from em_bench.sweep.preset import Preset, PresetEvaluation


def with_judge(preset: Preset, judge: str | None) -> Preset:
    """The preset with another judge; None leaves its own. Raises UserError where it has nothing to judge."""
    if judge is None:
        return preset
    if preset.evaluation.measure == "margin":
        raise UserError(f"--judge {judge}: preset {preset.name} measures the margin, which needs none; leave it out")
    return preset.model_copy(update={"evaluation": preset.evaluation.model_copy(update={"judge": judge})})


def with_engine(preset: Preset, engine: str | None) -> Preset:
    """The preset as a profile's engine answers it; None, and where nothing is sampled, leave its own. Raises UserError where it needs the weights."""
    if engine is None or preset.evaluation.measure == "margin":
        return preset
    try:
        changed = PresetEvaluation.model_validate(preset.evaluation.model_dump() | {"engine": engine})
    except ValidationError as e:
        raise UserError(f"preset {preset.name}, under the profile's engine {engine}: {e.errors()[0]['msg']}") from None
    return preset.model_copy(update={"evaluation": changed})


def with_seeds(preset: Preset, seeds: int | None) -> Preset:
    """The preset, every part of it, with the seeds 0 to `seeds` - 1 instead of its own; None leaves its own."""
    if seeds is None:
        return preset
    parts = {name: part.model_copy(update={"seeds": None}) for name, part in preset.parts.items()}
    return preset.model_copy(update={"seeds": tuple(range(seeds)), "parts": parts})


def with_model(preset: Preset, model: str | None) -> Preset:
    """The preset with another base in the place of its one: a roster name, or the folder of one's own model; None leaves its own.

    Targets of narrow loss are of the preset's base and are left out, as are its GPUs. Raises UserError where the preset has several.
    """
    if model is None:
        return preset
    if len(preset.models) > 1:
        raise UserError(
            f"--model {model}: preset {preset.name} has {len(preset.models)} bases, and it replaces one; take another preset"
        )
    own = {}
    if Path(model).is_dir():
        own, model = {(folder := Path(model).resolve()).name: folder_model(folder)}, folder.name
    parts = {name: part.model_copy(update={"models": None}) for name, part in preset.parts.items()}
    evaluation = preset.evaluation.model_copy(update={"targets": {}})
    changed = {"models": (model,), "parts": parts, "own_models": own, "evaluation": evaluation, "gpus": {}}
    return preset.model_copy(update=changed if model not in preset.models else {})
