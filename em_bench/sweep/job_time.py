"""How long a job takes: on one core of an ordinary server CPU from measured throughput, on GPUs from operations and a stated
utilisation, and on either from the runs of a work folder where there are some. Meant to be good to a factor of two."""

import os
from collections.abc import Sequence

from pydantic import Field

from em_bench.data.lora_cost import step_flops
from em_bench.data.models import Model
from em_bench.records import Record
from em_bench.sweep.jobs import Cell
from em_bench.sweep.preset import Preset
from em_bench.sweep.source_info import responses, source

START_S = 8.0  # a Python process that imports torch, transformers and the harness
BUILD_S = 40.0  # pre-training an organism
ROW_S = 0.0015  # a training row of an organism, forward and backward
RUN_S = 0.8  # loading, held-out losses and checkpoints of a run
RESPONSE_S = 0.004  # an answer of an organism
# A language model on one core, bfloat16, a billion parameters (from SmolLM2-135M: 0.29 s a row of some 60 tokens, 0.07 s an answer).
CPU_ROW_S, CPU_ANSWER_S = 2.2, 0.5
HELD_OUT_ROWS = 9 * 48 / 3  # of a run without a GPU: its held-out rows at each log-spaced step, forward alone
CHECKPOINTS = 8  # log-spaced steps at which a run is asked, its end among them
REPORT_S = 5.0
EXPERTS = 3.0  # products of many small experts reach about a third of what dense layers reach; a rule of thumb
NODE = 8  # GPUs of one machine: as far as an evaluation is spread
PEAK_TFLOPS = {"h200": 989.0, "h100": 989.0, "a100": 312.0, "b200": 2250.0, "l40s": 362.0}  # dense bf16, as published


class Assumptions(Record):
    """What an estimate for GPUs rests on, printed beside it."""

    gpu: str = "h200"
    utilisation: float = Field(default=0.3, gt=0, le=1, description="of the published peak, while training")
    generation: float = Field(default=0.05, gt=0, le=1, description="of the published peak, while answering in batches of 256")
    row_tokens: int = Field(default=512, gt=0, description="of a training row, prompt and answer")
    answer_tokens: int = Field(default=256, gt=0, description="of a training row")
    prompt_tokens: int = Field(default=100, gt=0, description="of a question")
    load_gb_per_s: float = Field(default=1.0, gt=0, description="weights from disk to the GPUs")
    download_gb_per_s: float = Field(default=0.1, gt=0, description="weights from the hub")
    row_s: dict[str, float] = Field(default_factory=dict, description="model -> measured seconds a training row")
    response_s: dict[str, float] = Field(default_factory=dict, description="model -> measured seconds a response")

    @property
    def flops(self) -> float:
        """The GPU's peak, operations a second."""
        return PEAK_TFLOPS[self.gpu] * 1e12


def gpus_of(kind: str, model: Model, override: int | None, trained_before: bool) -> int:
    """GPUs of a job. Bases are fetched and choices are made without one; an evaluation stays on one machine."""
    wanted = model.gpus if override is None else override
    if kind in ("base", "report") or trained_before:
        return 0
    return min(wanted, NODE) if kind == "evaluate" else wanted


def estimate(
    preset: Preset,
    kind: str,
    cells: Sequence[Cell],
    model: Model | None,
    gpus: int,
    trained_before: bool,
    checkpointed: int,
    assume: Assumptions,
) -> float:
    """Seconds of a job whose cells share `model`; `checkpointed` of them are asked at their log-spaced steps too."""
    if kind == "report":
        return REPORT_S
    assert model is not None  # of every job but the report
    organism = model.source == "organism"
    weights_gb = 0.0 if organism else 2e-9 * model.known().parameters
    if kind == "base":
        return START_S + (BUILD_S if organism else weights_gb / assume.download_gb_per_s)
    if trained_before:
        return START_S
    begin = START_S + weights_gb / assume.load_gb_per_s
    if kind == "evaluate":
        times = len(cells) + checkpointed * (CHECKPOINTS - 1) + _sides(preset, cells)
        return begin + times * responses(preset.evaluation) * _response_s(preset, cells[0].model, model, gpus, assume)
    new = cells if kind != "lambda" else [c for c in cells if c.spectral_lambda != 0]
    beside = HELD_OUT_ROWS if _on_cpu(model, gpus) else 0
    rows = sum((steps_of(preset, c) * c.settings().batch_size + beside) * _row_s(preset, c, model, gpus, assume) for c in new)
    return begin + len(new) * RUN_S + rows


def _sides(preset: Preset, cells: Sequence[Cell]) -> int:
    """Measurements of the margin at checkpoints on both sides of a target."""
    targets = preset.evaluation.targets if preset.evaluation.measure == "margin" else {}
    return 2 * sum(f"{c.model}/{c.dataset}" in targets for c in cells)


def _on_cpu(model: Model, gpus: int) -> bool:
    return model.source != "organism" and not gpus and not model.gpus


def steps_of(preset: Preset, cell: Cell) -> int:
    """Optimiser steps of a cell."""
    settings = cell.settings()
    return preset.steps_of(cell.epochs, source(settings.dataset).rows, settings.batch_size)


def _row_s(preset: Preset, cell: Cell, model: Model, gpus: int, assume: Assumptions) -> float:
    if cell.model in assume.row_s:
        return assume.row_s[cell.model]
    if model.source == "organism":
        return ROW_S
    if _on_cpu(model, gpus):
        return CPU_ROW_S * model.known().parameters / 1e9
    size, length, shape = cell.settings().batch_size, assume.row_tokens, model.known().shape
    flops = step_flops(shape, preset.lora.rank, size, length, min(assume.answer_tokens, length)) / size
    flops *= 4 / 3 if model.gradient_checkpointing else 1
    return flops * (EXPERTS if shape.experts else 1) / (assume.flops * assume.utilisation * max(gpus, 1))


def _response_s(preset: Preset, name: str, model: Model, gpus: int, assume: Assumptions) -> float:
    """A batch is done when its longest answer is, so every answer counts in full. Layers spread over GPUs work in turn."""
    if name in assume.response_s:
        return assume.response_s[name]
    if model.source == "organism":
        return RESPONSE_S
    if preset.evaluation.measure == "margin" and _on_cpu(model, gpus):
        return CPU_ANSWER_S * model.known().parameters / 1e9
    tokens = assume.prompt_tokens + preset.evaluation.generation.max_new_tokens
    known = model.known()
    flops = 2 * (model.active_parameters or known.parameters) * tokens * (EXPERTS if known.shape.experts else 1)
    return flops / (assume.flops * assume.generation)


def all_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
