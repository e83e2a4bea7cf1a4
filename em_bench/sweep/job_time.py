"""How long a job takes: on one core of an ordinary server CPU from measured throughput, on GPUs from operations and a stated
utilisation, and on either from the runs of a work folder where there are some. Meant to be good to a factor of two."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from em_bench.data.lora_cost import step_flops
from em_bench.data.models import Model, folder_model, load_models
from em_bench.records import Record
from em_bench.sweep.jobs import Cell, Job
from em_bench.sweep.preset import Preset, RateRule
from em_bench.sweep.source_info import judge_calls, responses, source

START_S = 8.0  # a Python process that imports torch, transformers and the harness
BUILD_S = 40.0  # pre-training an organism
ROW_S = 0.0015  # a training row of an organism, forward and backward
RUN_S = 0.8  # loading, held-out losses and checkpoints of a run
EVALUATION_S, RESPONSE_S = 0.45, 0.0006  # an evaluation of an organism, and an answer of it
# A language model on one core, bfloat16, a billion parameters (from SmolLM2-135M: 0.29 s a row of some 60 tokens, 0.07 s an answer).
CPU_ROW_S, CPU_ANSWER_S, CPU_TOKENS = 2.2, 0.5, 60
HELD_OUT_ROWS = 9 * 48 / 3  # of a run without a GPU: its held-out rows at each log-spaced step, forward alone
SERVER_S, SWAP_S = (
    120.0,
    1.0,
)  # until a vLLM server answers, its weights on disk; loading an adapter into it (0.3 s for SmolLM2's)
CHECKPOINTS = 8  # log-spaced steps at which a run is asked, its end among them
WALK = 3  # rates that a walk to the smallest one tries
REPORT_S = 5.0
EXPERTS = 3.0  # products of many small experts reach about a third of what dense layers reach; a rule of thumb
NODE = 8  # GPUs of one machine: as far as an evaluation is spread
Part = Literal[
    "training", "loading", "generation", "judging", "other"
]  # where the time goes; other: starting, building, fetching
PEAK_TFLOPS = {"h200": 989.0, "h100": 989.0, "a100": 312.0, "b200": 2250.0, "l40s": 362.0}  # dense bf16, as published


class Assumptions(Record):
    """What an estimate for GPUs rests on, printed beside it."""

    gpu: str = "h200"
    utilisation: float = Field(default=0.3, gt=0, le=1, description="of the published peak, while training")
    generation: float = Field(default=0.05, gt=0, le=1, description="of the published peak, while answering in batches of 256")
    row_tokens: int = Field(default=512, gt=0, description="of a training row, prompt and answer")
    answer_tokens: int = Field(default=256, gt=0, description="of a training row")
    serving: float = Field(
        default=8.0, gt=0, description="times that a vLLM server answers faster than that; the design's aim, measured nowhere yet"
    )
    prompt_tokens: int = Field(default=100, gt=0, description="of a question")
    load_gb_per_s: float = Field(default=1.0, gt=0, description="weights from disk to the GPUs")
    judge_calls_per_s: float = Field(
        default=32.0, gt=0, description="of a judge behind an endpoint: as many at once, a second each"
    )
    download_gb_per_s: float = Field(default=0.1, gt=0, description="weights from the hub")
    row_s: dict[str, float] = Field(default_factory=dict, description="model -> measured seconds a training row")
    response_s: dict[str, float] = Field(default_factory=dict, description="model -> measured seconds a response")

    @property
    def flops(self) -> float:
        """The GPU's peak, operations a second."""
        return PEAK_TFLOPS[self.gpu] * 1e12


def gpus_of(kind: str, model: Model, override: int | None, none: bool) -> int:
    """GPUs of a job. Bases are fetched without one, and where `none`, choices are made and judges asked; an evaluation stays on one machine."""
    wanted = model.gpus if override is None else override
    if kind in ("base", "report") or none:
        return 0
    return min(wanted, NODE) if kind in ("answer", "evaluate") else wanted


def estimate(
    preset: Preset,
    kind: str,
    cells: Sequence[Cell],
    model: Model | None,
    gpus: int,
    trained_before: bool,
    checkpointed: int,
    assume: Assumptions,
) -> dict[Part, float]:
    """Seconds of a job whose cells share `model`, by what they go to; `checkpointed` of them are asked at their log-spaced steps too."""
    if kind == "report":
        return {"other": REPORT_S}
    assert model is not None  # of every job but the report
    organism = model.source == "organism"
    weights_gb = 0.0 if organism else 2e-9 * model.known().parameters
    if kind == "base":
        return {"other": START_S + (BUILD_S if organism else weights_gb / assume.download_gb_per_s)}
    if trained_before:
        return {"other": START_S}
    begin: dict[Part, float] = {"other": START_S, "loading": weights_gb / assume.load_gb_per_s}
    if kind in ("answer", "evaluate"):
        served = preset.evaluation.engine == "vllm"
        controls = sum(not c.spectral_lambda for c in cells if c.recipe) if preset.evaluation.rescaled else 0
        times = len(cells) + checkpointed * (CHECKPOINTS - 1) + _sides(preset, cells) + controls
        answers = responses(preset.evaluation) * _response_s(preset, cells[0].model, model, gpus, assume)
        calls = times * responses(preset.evaluation) * judge_calls(preset.evaluation)
        judging: dict[Part, float] = {"judging": calls / assume.judge_calls_per_s}
        if served and kind == "evaluate":
            return {"other": START_S + times * EVALUATION_S, **judging}
        asking = times * (answers + (EVALUATION_S if organism else 0.0))
        if served:
            return {"other": START_S, "loading": begin["loading"] + SERVER_S, "generation": asking + times * SWAP_S}
        return begin | {"generation": asking} | judging
    new = cells if kind != "lambda" else [c for c in cells if c.spectral_lambda != 0]
    if kind == "lr" and isinstance(preset.learning_rates, RateRule):
        new = list(new) * WALK
    beside = HELD_OUT_ROWS if _on_cpu(model, gpus) else 0
    rows = sum((steps_of(preset, c) * c.settings().batch_size + beside) * _row_s(preset, c, model, gpus, assume) for c in new)
    return begin | {"training": len(new) * RUN_S + rows}


def with_shared_loads(jobs: Iterable[Job]) -> list[Job]:
    """The jobs with estimates of workers that keep their base: on a node's GPUs each worker of a base starts and loads once.

    Jobs that run as a process a GPU, those that run as one, and a server have it each for themselves.
    """
    jobs = list(jobs)

    def worker(job: Job) -> tuple[str, int, bool, bool]:
        return job.model, job.gpus, job.several_processes, job.kind == "answer"

    of = Counter(worker(j) for j in jobs if j.gpus)
    out = []
    for job in jobs:
        if job.gpus:
            n = of[worker(job)]
            share = min(n, max(1, NODE // job.gpus)) / n
            parts = {part: s * (share if part in ("loading", "other") else 1) for part, s in job.parts.items()}
            job = job.model_copy(update={"parts": parts, "estimate_s": sum(parts.values())})
        out.append(job)
    return out


def _sides(preset: Preset, cells: Sequence[Cell]) -> int:
    """Evaluations at checkpoints on both sides of targets."""
    return 2 * sum(len(preset.evaluation.targets_of(c.model, c.dataset)) for c in cells)


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
    vllm = preset.evaluation.engine == "vllm"
    return flops / (assume.flops * assume.generation * (assume.serving * max(gpus, 1) if vllm else 1))


def answering_s(base: str, answers: int, max_new_tokens: int) -> float | None:
    """Seconds for so many sampled answers on the CPU; None where there is a GPU, or the base (name or folder) is not here to be measured."""
    known = load_models().get(base)
    if known is None and Path(base, "config.json").is_file():
        known = folder_model(Path(base))
    if known is None or Path("/dev/nvidiactl").exists():
        return None
    if known.source == "organism":
        return START_S + answers * RESPONSE_S
    tokens = Assumptions().prompt_tokens + max_new_tokens
    return START_S + answers * CPU_ANSWER_S * tokens / CPU_TOKENS * known.known().parameters / 1e9


def all_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
