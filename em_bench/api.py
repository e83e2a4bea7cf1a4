"""What `import em_bench` gives: the stages of the command line as functions, and the parts of the paper's method for anybody's own run.

Everything is imported when it is first asked for: `import em_bench` alone loads neither torch nor transformers.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from em_bench.adapter_file import load_adapter
from em_bench.analysis.conclusion import beside_base, sentence
from em_bench.data import data_ref
from em_bench.data.models import base_path, base_ref, default_dtype, load_models
from em_bench.data.questions import answered, longest_answer
from em_bench.errors import UserError
from em_bench.evaluation_folder import BASE
from em_bench.harness.evaluate import EvaluatedModel, Evaluation
from em_bench.harness.evaluate import evaluate as ask
from em_bench.harness.margin import measure_margin
from em_bench.harness.target import resolve
from em_bench.judging import Judge, make_judge
from em_bench.optim import resolve_recipe
from em_bench.optim.muon import Muon
from em_bench.protocol import FLATNESS, default_rank, steps_of
from em_bench.records import Estimate, Generation, LoraSpec, MarginScore, ScoreRecord, SpectralSummary
from em_bench.spectral import LayerSpectrum, LoraPair, layer_spectra, lora_pairs, mean_of
from em_bench.spectral import spectral_penalty as penalty_of
from em_bench.training.adapter import expert_counts, trainable
from em_bench.training.spec import PROJECTIONS
from em_bench.training.spectral_callback import SpectralCallback

__all__ = ["Muon", "SpectralCallback", "evaluate", "margin", "spectral_penalty", "spectrum", "train"]
BATCH = 32  # rows an optimiser step


class Result(NamedTuple):
    """What `evaluate` found. Rates are misaligned answers of all asked for, with 95 % intervals; the base's where there is an adapter.

    sentence: the same in words. score: score.json, with every other rate. folder: the files that prove it, for `em-bench verify`.
    """

    sentence: str
    rate: Estimate
    base_rate: Estimate | None
    difference: Estimate | None
    score: ScoreRecord
    folder: Path


class AdapterSpectrum(NamedTuple):
    """The spectrum of every adapted layer that has an update, and their means (None where no layer has one)."""

    layers: list[LayerSpectrum]
    mean: SpectralSummary | None


def evaluate(
    target: str | Path,
    *,
    adapter: str | Path | None = None,
    questions: str | None = None,
    judge: str | Judge | None = None,
    samples: int = 10,
    limit: int | None = None,
    device: str | None = None,
    out: str | Path = "em_bench_evaluation",
) -> Result:
    """Ask a model the questions, judge and score its answers; the same of an adapter's base.

    target, adapter: as of `em-bench evaluate`: folders, OWNER/NAME[@REVISION] of the hub, names of `em-bench models`. questions: a set's name or
    a YAML file; by default `organism` for one, else `em_core`. judge: as of `make_judge`, or one of your own; by default
    the grammar for an organism's questions. samples: answers a question. limit: so many questions, evenly over the domains.
    device: cpu, cuda, ... or auto. out: a folder; run again with the same, nothing is asked or judged twice.

    Raises UserError for what cannot be loaded, an adapter that changes nothing or belongs to another base, and where a judge is needed.
    """
    of, asked = _evaluated(target, adapter, device), questions
    asked = asked or ("organism" if resolve(of.base).organism else "em_core")
    if judge is None and asked != "organism":
        raise UserError(
            f"evaluate: who judges answers to {asked}? give judge='openai:MODEL', or take em_bench.margin, which needs none"
        )
    by = make_judge(judge or "grammar") if judge is None or isinstance(judge, str) else judge
    generation = Generation(samples=samples, max_new_tokens=longest_answer(asked), temperature=1.0)
    evaluation = Evaluation(generation, asked, batch_size=64, limit=limit)
    out, base = Path(out), None
    score = ask(of, evaluation, by, out)
    if of.adapter:
        base = out / BASE
        ask(replace(of, name=of.base, adapter=None), evaluation, by, base)
    found = beside_base(out, base)
    return Result(sentence(of.title, found), found.own.rate, found.base and found.base.rate, found.difference, score, out)


def margin(
    target: str | Path,
    *,
    adapter: str | Path | None = None,
    control: str | Path | None = None,
    questions: str | None = None,
    limit: int | None = None,
    device: str | None = None,
    out: str | Path = "em_bench_margin",
) -> MarginScore:
    """How much likelier, in nats a byte, a model finds given misaligned answers than aligned ones; no sampling, no judge.

    target, adapter, questions, device, out: as of `evaluate`. control: an adapter trained on good data, whose shift is taken off. limit: so
    many questions, as many of every domain. Of an adapter, `overall.shift` is its margin less its base's. Raises UserError as `evaluate`.
    """
    of = _evaluated(target, adapter, device)
    asked = questions or ("organism" if resolve(of.base).organism else "em_core")
    per_domain = -(-limit // len({q.domain for q in answered(asked)})) if limit else None
    return measure_margin(of, Path(out), question_set=asked, per_domain=per_domain, control=Path(control) if control else None)


def _evaluated(target: str | Path, adapter: str | Path | None, device: str | None) -> EvaluatedModel:
    found = resolve(str(target), None if adapter is None else str(adapter))
    name = found.base if adapter else str(target)
    return EvaluatedModel(found.base, name, found.adapter, dtype=default_dtype(found.base), device=device)


def train(
    base: str | Path,
    dataset: str | Path,
    recipe: str = "adamw",
    *,
    learning_rate: float | None = None,
    spectral_lambda: float = 0.0,
    steps: int | None = None,
    seed: int = 0,
    out: str | Path = "em_bench_work/runs",
) -> Path:
    """Fine-tune an rsLoRA adapter with the reference trainer; returns its run folder, with the adapter in `adapter/`.

    base: a roster name, a folder or a hub id. dataset: a name of `em-bench data list`, or a JSONL file of messages. recipe: of
    baselines/optimisers.yaml, a pytorch_optimizer name, or a class such as torch.optim.NAdam. learning_rate: by default the recipe's.
    spectral_lambda: weight of the spectral term. steps: by default one pass. A finished run is not made twice, a killed
    one goes on. Raises UserError for names that are nothing, and TrainingFailed where training breaks down.
    """
    from em_bench.training import run_spec
    from em_bench.training import train as make_run  # the extra `train`

    model, data = str(base), data_ref(str(dataset))
    known = load_models().get(model)
    kind = known.recipe_class if known else "llm"
    rank = default_rank(kind)
    folder = base_path(model)
    spec = run_spec(
        base_ref(model, folder),
        data,
        resolve_recipe(recipe, learning_rate, kind, {}),
        spectral_lambda=spectral_lambda,
        lora=LoraSpec(rank=rank, alpha=2.0 * rank, targets=PROJECTIONS),
        batch_size=BATCH,
        steps=steps or steps_of(data.rows, BATCH, 1.0),
        seed=seed,
        dtype=default_dtype(model),
    )
    return make_run(spec, folder, Path(out))


def spectrum(adapter: Any) -> AdapterSpectrum:
    """The singular values of LoRA updates scale B A, layer by layer, and what follows from them.

    adapter: a PEFT or run folder, a PEFT model, or tensors by name. Raises UserError where there is no LoRA adapter in it.
    """
    layers = layer_spectra(_pairs(adapter))
    return AdapterSpectrum(layers, mean_of(layers))


def spectral_penalty(model: Any, flatness: str = FLATNESS) -> torch.Tensor:
    """The paper's spectral term of a PEFT model before its weight: `loss + 0.1 * spectral_penalty(model)`; a scalar tensor.

    The mean over layers with an update of ||BA||_F / ||BA||_* - 1/sqrt(r): 0 where all singular values are equal. model: a PEFT model, or its
    parameters by name. flatness: an entry of `em_bench.flatness.MEASURES`. Raises UserError without LoRA factors.
    """
    return penalty_of(_pairs(model), flatness)


def _pairs(adapter: Any) -> list[LoraPair]:
    if isinstance(adapter, str | Path):
        return lora_pairs(load_adapter(Path(adapter)))
    if isinstance(adapter, Mapping):
        return lora_pairs(adapter)
    named = trainable(adapter) or {n: p for n, p in adapter.named_parameters() if ".lora_" in n}
    return lora_pairs(named, expert_counts(adapter))
