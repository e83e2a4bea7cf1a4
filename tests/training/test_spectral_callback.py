"""The spectral term by a callback of transformers' Trainer: the adapter of our trainer, step by step, clipping and accumulation included."""

import pytest
import torch
from helpers.sft_rows import sft_columns
from transformers import AutoTokenizer

from em_bench import SpectralCallback, spectral_penalty
from em_bench.data import rows
from em_bench.errors import UserError
from em_bench.records import LoraSpec
from em_bench.spectral import lora_pairs
from em_bench.training import encode_rows
from em_bench.training.adapter import add_adapter, trainable
from em_bench.training.base import load_base
from em_bench.training.batches import batch_indices
from em_bench.training.spec import PROJECTIONS

trl = pytest.importorskip("trl", reason="needs TRL (pip install em-bench[test])")
STEPS, BATCH, WEIGHT, RATE, CLIP = 4, 8, 3.0, 0.3, 0.5
LORA = LoraSpec(rank=4, alpha=8, targets=PROJECTIONS)


def sft(base, spec, model, folder, callbacks, **options):
    """TRL's trainer on the batches of our spec, at a constant rate."""
    import datasets

    tokenizer = AutoTokenizer.from_pretrained(base)
    config = trl.SFTConfig(
        output_dir=str(folder), max_steps=STEPS, max_grad_norm=CLIP, train_sampling_strategy="sequential", logging_steps=1,
        save_strategy="no", report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        learning_rate=RATE, lr_scheduler_type="constant", dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False,
        max_length=None, **options,
    )  # fmt: skip
    optimizer = torch.optim.SGD(trainable(model).values(), lr=RATE)
    return trl.SFTTrainer(
        model=model, args=config, train_dataset=datasets.Dataset.from_list(sft_columns(base, spec)), processing_class=tokenizer,
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)), callbacks=callbacks,
    )  # fmt: skip


def by_hand(base, spec, weight):
    """The same steps written out: autograd of (answer NLL a token + weight x penalty), torch's clipping, SGD. Gives factors and the terms."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    encoded, _ = encode_rows(tokenizer, rows("medical")[0], spec.max_length)
    model = add_adapter(load_base(base), LORA, spec.seed)
    params, terms = trainable(model), []
    optimizer = torch.optim.SGD(params.values(), lr=RATE)
    for step in range(STEPS):
        batch = [encoded[i] for i in batch_indices(len(encoded), BATCH, spec.seed, step)]
        tokens = sum(sum(e.answer_mask) for e in batch)
        loss = 0.0
        for e in batch:
            ids = torch.tensor([e.input_ids])
            said = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            loss = loss - said[torch.tensor(e.answer_mask[1:], dtype=torch.bool)].sum() / tokens
        term = dense_penalty(lora_pairs(params))
        terms.append(float(term.detach()))
        optimizer.zero_grad()
        (loss + weight * term).backward()
        torch.nn.utils.clip_grad_norm_(params.values(), CLIP)
        optimizer.step()
    return params, terms


def dense_penalty(pairs):
    """Mean over layers with an update of F/N - 1/sqrt(r), from an SVD of B A itself; the ridge of 1e-8 on B'B is 1e-4 I below B."""
    gaps = []
    for p in pairs:
        if float(p.B.detach().abs().max()) > 0:
            s = torch.linalg.svdvals(torch.cat([p.B.double(), 1e-4 * torch.eye(p.rank)]) @ p.A.double())[: p.rank]
            gaps.append(s.square().sum().sqrt() / s.sum() - p.rank**-0.5)
    return sum(gaps) / len(gaps) if gaps else torch.zeros(())


@pytest.mark.parametrize("accumulate", [1, 4])
def test_an_sft_run_with_the_callback_is_the_loss_with_the_term(base, spec_for, tmp_path, accumulate):
    spec = spec_for("adamw", lora=LORA, batch_size=BATCH, steps=STEPS)
    model, callback = add_adapter(load_base(base), LORA, spec.seed), SpectralCallback(WEIGHT)
    sizes = {"per_device_train_batch_size": BATCH // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = sft(base, spec, model, tmp_path, [callback], **sizes)
    trainer.train()
    wanted, terms = by_hand(base, spec, WEIGHT)
    without, _ = by_hand(base, spec, 0.0)
    found = trainable(trainer.model)
    # B begins at 0: the term sets in at the second step, and is clipped together with the loss's gradient.
    moved = max(float((wanted[n] - without[n]).abs().max()) for n in wanted)
    assert moved > 1e-3, "the term moves the adapter"
    for name, p in wanted.items():
        assert float((found[name] - p).abs().max()) < 1e-3 * moved, name
    logged = [e["spectral_term"] for e in trainer.state.log_history if "spectral_term" in e]
    assert logged == pytest.approx(terms, rel=1e-3, abs=1e-9)
    assert trainer.args.max_grad_norm == CLIP


def test_what_it_cannot_do_is_said(base, tmp_path):
    from transformers import Trainer, TrainingArguments

    for weight in (-1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="from 0"):
            SpectralCallback(weight)
    with pytest.raises(UserError, match="frobenius"):
        SpectralCallback(1.0, "frobenus")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", max_steps=1)
    trainer = Trainer(model=load_base(base), args=arguments, callbacks=[SpectralCallback(1.0)])
    with pytest.raises(UserError, match="no LoRA factors"):
        trainer.callback_handler.on_train_begin(arguments, trainer.state, trainer.control)


def test_the_penalty_of_a_model_can_be_added_to_any_loss(base):
    model = add_adapter(load_base(base), LORA, 0)
    params = trainable(model)
    with torch.no_grad():
        for n, p in params.items():
            if "lora_B" in n:
                p.normal_(generator=torch.Generator().manual_seed(len(n)))
    (2 * spectral_penalty(model)).backward()
    ours = {n: p.grad.clone() for n, p in params.items()}
    model.zero_grad()
    value = dense_penalty(lora_pairs(params))
    (2 * value).backward()
    assert float(spectral_penalty(model)) == pytest.approx(float(value), rel=1e-6)
    largest = max(float(p.grad.abs().max()) for p in params.values())
    for name, p in params.items():
        assert float((ours[name] - p.grad).abs().max()) < 1e-4 * largest, name
