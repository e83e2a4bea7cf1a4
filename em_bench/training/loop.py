"""The training loop: steps from a resumed state to the end, a log line each, checkpoints at some."""

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch

from em_bench.flatness import SpectralTerm
from em_bench.optim import build_optimizer
from em_bench.records import RunSpec, SpectralSummary, StepRecord
from em_bench.run_folder import LOG, RunFolder
from em_bench.spectral import add_penalty_gradients, lora_pairs, spectrum_summary
from em_bench.training.adapter import expert_counts, round_to_bfloat16, save_adapter, trainable
from em_bench.training.batches import batch_indices, collate, pack, shares
from em_bench.training.checkpoint import load_state, save_state
from em_bench.training.ending import ENDED, Ending
from em_bench.training.execution_options import Options
from em_bench.training.gradients import FlatGradients
from em_bench.training.health import TrainingFailed, check_held_out, check_step, exploded_above, stops_marked
from em_bench.training.log import Log
from em_bench.training.loss import HELD_OUT_TOKENS, answer_nll, answer_tokens, narrow_loss
from em_bench.training.passes import Passes
from em_bench.training.processes import Processes, processes
from em_bench.training.schedule import factor
from em_bench.training.spec import kept_steps, measured_steps
from em_bench.training.tokens import Encoded, TrainingRows

__all__ = ["LOG", "TrainingFailed", "fit"]

WORTH = 50  # times as long as writing a state takes: states then cost at most 2 % of the time


def fit(
    model,
    spec: RunSpec,
    data: TrainingRows,
    folder: Path,
    *,
    options: Options = Options(),
    on_step: Callable[[StepRecord], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    peers: Processes | None = None,
) -> StepRecord | None:
    """Train the adapter on `model` in place, resuming from `folder` where it holds a state.

    Writes train.jsonl, checkpoints/<step>/ at `kept_steps`, and a resumable state at intervals, and when this process is told
    to end (SIGTERM, or SIGUSR1 as SLURM sends ahead of its time limit): SystemExit then, for the same command to go on.
    The gradient of a step is that of (summed answer NLL) / (answer tokens of the whole batch) + lambda * spectral term,
    clipped by its global norm; with several processes each computes its share of the first summand.
    Returns the last record, None on processes other than the first. Raises TrainingFailed when training breaks down
    (failed.json then says where), UserError when memory does not suffice for a single row.
    """
    peers = peers or processes()
    params = trainable(model)
    experts = expert_counts(model)
    pairs = lora_pairs(params, experts, spec.lora.scale)
    term = SpectralTerm(spec.spectral_lambda, spec.flatness)
    optimizer = build_optimizer(spec.recipe.rules, params.items(), spec.recipe.learning_rate, experts)
    base_rates = [g["lr"] for g in optimizer.param_groups]
    measured = set(measured_steps(spec))
    vocabulary = model.get_base_model().config.get_text_config().vocab_size
    batch_of = pack if options.packed else collate

    done, count = load_state(folder, params=params, optimizer=optimizer)
    count = count or {"answer": 0, "all": 0, "seconds": 0.0}
    log = Log(folder, done, peers.first, on_step)
    at = RunFolder(folder)
    held_out = {r.step: r.held_out_loss for r in at.log() if r.held_out_loss is not None} if done and peers.first else {}
    gradients = FlatGradients(params.values())
    passes = Passes(model, spec, options, peers, say)
    saved, cost, limit = time.monotonic(), 0.0, math.inf

    def held_out_loss(step: int) -> float:
        while True:
            try:
                return narrow_loss(model, data.held_out, data.pad_id, passes.max_tokens, peers)
            except torch.OutOfMemoryError:
                passes.halve(data.held_out, step, HELD_OUT_TOKENS)

    def measure(**fields) -> StepRecord:
        if peers.differ(params.values()):
            raise TrainingFailed(fields["step"], "the processes hold different adapters; are their machines alike?")
        optimizer.eval()
        loss = held_out_loss(fields["step"])
        check_held_out(fields["step"], loss, limit)
        record = StepRecord(held_out_loss=loss, spectral=_summary(pairs), tokens=int(count["answer"]), **fields)
        if peers.first:
            held_out[record.step] = loss
            kept = kept_steps(spec, [*held_out.items()])
            if record.step in kept:
                save_adapter(model, at.adapter(record.step), spec.lora.stored)
            for step in set(at.checkpoint_steps()) - kept:
                shutil.rmtree(at.adapter(step))
        optimizer.train()
        return record

    model.train()
    optimizer.train()
    rows: list[Encoded] = []
    with log, stops_marked(folder if peers.first else None, lambda: [r.row for r in rows]), Ending() as ending:
        if done == 0:
            log.write(measure(step=0, loss=None))
        limit = exploded_above(vocabulary, peers.agree(lambda: held_out.get(0, 0.0)))
        for step in range(done, spec.steps):
            began = time.monotonic()
            indices = batch_indices(len(data.train), spec.batch_size, spec.seed, step, data.stages)
            rows = [data.train[i] for i in indices]
            tokens = answer_tokens(rows)
            while True:
                gradients.zero()  # also of a pass that ran out of memory on its way back
                full = not _through(model, rows, tokens, data.pad_id, passes, gradients, batch_of)
                reduced = gradients.reduce(peers, out_of_memory=full, stop=ending.asked)
                if not reduced.out_of_memory:
                    break
                passes.halve(rows, step + 1)
            loss = reduced.loss
            penalty = add_penalty_gradients(pairs, term) if term.weight else None
            norm = gradients.clip(spec.gradient_clip)
            check_step(step + 1, loss, norm, limit)
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
            if step + 1 == spec.steps and spec.lora.stored == "bfloat16":
                round_to_bfloat16(params)
            if step + 1 in measured:
                log.write(measure(**fields))
            else:
                log.write(StepRecord(tokens=int(count["answer"]), **fields))
            due = time.monotonic() - saved > (options.save_every_s and max(options.save_every_s, WORTH * cost))
            if step + 1 < spec.steps and (due or reduced.stop):
                if peers.first:
                    began = time.monotonic()
                    log.sync()
                    save_state(folder, step=step + 1, params=params, optimizer=optimizer, tokens=count)
                    saved = time.monotonic()
                    cost = saved - began
                if reduced.stop:
                    if peers.first:
                        say(f"told to end: the state of step {step + 1} is saved; the same command goes on")
                    peers.agree(lambda: None)
                    raise SystemExit(ENDED)
    optimizer.eval()
    return log.last


def _through(model, rows, tokens: int, pad_id: int, passes: Passes, gradients: FlatGradients, batch_of) -> bool:
    """This process's share of a step, forward and backward; whether memory sufficed. `tokens`: answer tokens of the whole batch."""
    device = passes.peers.device
    for part in shares(rows, passes.max_tokens, passes.peers.rank, passes.peers.size):
        try:
            nll = answer_nll(model, batch_of(part, pad_id, device)) / tokens
            nll.backward()
        except torch.OutOfMemoryError:
            return False
        gradients.add_loss(nll)
    return True


def _summary(pairs) -> SpectralSummary | None:
    with torch.no_grad():
        return spectrum_summary(pairs)
