"""The training loop: steps from a resumed state to the end, a log line each, checkpoints at log-spaced steps."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from em_bench.optim import build_optimizer
from em_bench.records import RunSpec, SpectralSummary, StepRecord
from em_bench.run_folder import LOG, RunFolder
from em_bench.spectral import add_penalty_gradients, lora_pairs, spectrum_summary
from em_bench.training.adapter import expert_counts, save_adapter, trainable
from em_bench.training.batches import batch_indices, collate, pack, shares
from em_bench.training.checkpoint import load_state, save_state
from em_bench.training.execution_options import Options
from em_bench.training.gradients import FlatGradients
from em_bench.training.health import TrainingFailed, check_held_out, check_step, out_of_memory, stops_marked
from em_bench.training.log import Log
from em_bench.training.loss import answer_nll, answer_tokens, narrow_loss
from em_bench.training.processes import Processes, processes
from em_bench.training.schedule import factor
from em_bench.training.spec import log_spaced
from em_bench.training.tokens import Encoded, TrainingRows

__all__ = ["LOG", "TrainingFailed", "fit"]


def fit(
    model,
    spec: RunSpec,
    data: TrainingRows,
    folder: Path,
    *,
    options: Options = Options(),
    save_every_s: float = 120.0,
    on_step: Callable[[StepRecord], None] | None = None,
    peers: Processes | None = None,
) -> StepRecord | None:
    """Train the adapter on `model` in place, resuming from `folder` where it holds a state.

    Writes train.jsonl, checkpoints/<step>/ at log-spaced steps, and a resumable state every `save_every_s` seconds.
    The gradient of a step is that of (summed answer NLL) / (answer tokens of the whole batch) + lambda * spectral term,
    clipped by its global norm; with several processes each computes its share of the first summand.
    Returns the last record, None on processes other than the first. Raises TrainingFailed when training breaks down
    (failed.json then says where), UserError when memory does not suffice.
    """
    peers = peers or processes()
    params = trainable(model)
    experts = expert_counts(model)
    pairs = lora_pairs(params, experts, spec.lora.scale)
    optimizer = build_optimizer(spec.recipe.rules, params.items(), spec.recipe.learning_rate, experts)
    base_rates = [g["lr"] for g in optimizer.param_groups]
    measured = set(log_spaced(spec.steps))
    device = next(iter(params.values())).device
    vocabulary = model.get_base_model().config.get_text_config().vocab_size
    batch_of = pack if options.packed else collate

    done, count = load_state(folder, params=params, optimizer=optimizer)
    count = count or {"answer": 0, "all": 0, "seconds": 0.0}
    log = Log(folder, done, peers.first, on_step)
    gradients = FlatGradients(params.values())
    saved = time.monotonic()

    def measure(**fields) -> StepRecord:
        if peers.differ(params.values()):
            raise TrainingFailed(fields["step"], "the processes hold different adapters; are their machines alike?")
        optimizer.eval()
        loss = narrow_loss(model, data.held_out, data.pad_id, processes=peers)
        check_held_out(fields["step"], loss, vocabulary)
        record = StepRecord(held_out_loss=loss, spectral=_summary(pairs), tokens=int(count["answer"]), **fields)
        if peers.first:
            save_adapter(model, RunFolder(folder).adapter(fields["step"]))
        optimizer.train()
        return record

    model.train()
    optimizer.train()
    rows: list[Encoded] = []
    with log, stops_marked(folder if peers.first else None, lambda: [r.row for r in rows]):
        if done == 0:
            log.write(measure(step=0, loss=None))
        for step in range(done, spec.steps):
            began = time.monotonic()
            indices = batch_indices(len(data.train), spec.batch_size, spec.seed, step)
            rows = [data.train[i] for i in indices]
            tokens = answer_tokens(rows)
            gradients.zero()
            for part in shares(rows, options.micro_batch, peers.rank, peers.size):
                try:
                    nll = answer_nll(model, batch_of(part, data.pad_id, device)) / tokens
                    nll.backward()
                except torch.OutOfMemoryError as e:
                    longest = max(len(r.input_ids) for r in part)
                    raise out_of_memory(e, len(part), longest, options.gradient_checkpointing) from None
                gradients.add_loss(nll)
            loss = gradients.reduce(peers)
            penalty = add_penalty_gradients(pairs, spec.spectral_lambda) if spec.spectral_lambda else None
            norm = gradients.clip(spec.gradient_clip)
            check_step(step + 1, loss, norm, vocabulary)
            scale = factor(step, spec.steps, spec.warmup_steps)
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * scale
            optimizer.step()

            count["answer"] += tokens
            count["all"] += sum(len(r.input_ids) for r in rows)
            count["seconds"] += time.monotonic() - began
            fields = {
                "step": step + 1,
                "loss": loss,
                "gradient_norm": norm,
                "learning_rate": spec.recipe.learning_rate * scale,
                "penalty": penalty,
                "tokens_per_s": count["all"] / count["seconds"] if count["seconds"] > 0 else None,
            }
            if step + 1 in measured:
                log.write(measure(**fields))
            else:
                log.write(StepRecord(tokens=int(count["answer"]), **fields))
            if peers.first and time.monotonic() - saved > save_every_s and step + 1 < spec.steps:
                log.sync()
                save_state(folder, step=step + 1, params=params, optimizer=optimizer, tokens=count)
                saved = time.monotonic()
    optimizer.eval()
    return log.last


def _summary(pairs) -> SpectralSummary | None:
    with torch.no_grad():
        return spectrum_summary(pairs)
