"""An independent trainer on the same batches: TRL's SFTTrainer gives the same adapter and the same losses."""

import json
import math
import os

import pytest
import torch
from helpers.sft_rows import sft_columns
from safetensors.torch import load_file
from transformers import AutoTokenizer

from em_bench.records import LoraSpec
from em_bench.training.adapter import add_adapter, trainable
from em_bench.training.base import load_base
from em_bench.training.spec import PROJECTIONS

trl = pytest.importorskip("trl", reason="the cross-check needs TRL (pip install em-bench[test])")
STEPS, BATCH = 20, 8


def test_twenty_steps_of_adamw_are_trls(made, spec_for, base, tmp_path):
    import datasets
    from trl import SFTConfig, SFTTrainer

    lora = LoraSpec(rank=4, alpha=8, targets=PROJECTIONS)
    spec = spec_for("adamw", lora=lora, batch_size=BATCH, steps=STEPS, lr=1e-3, warmup_steps=5)
    folder = made(spec)

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = add_adapter(load_base(base), lora, spec.seed)
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-3, weight_decay=0.01)
    config = SFTConfig(
        output_dir=str(tmp_path), max_steps=STEPS, per_device_train_batch_size=BATCH, gradient_accumulation_steps=1, warmup_steps=5,
        lr_scheduler_type="linear", max_grad_norm=1.0, train_sampling_strategy="sequential", logging_steps=1, save_strategy="no",
        report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True, learning_rate=1e-3,
        dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False, max_length=None,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: s / 5 if s < 5 else (STEPS - s) / (STEPS - 5))
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=datasets.Dataset.from_list(sft_columns(base, spec)),
        processing_class=tokenizer,
        optimizers=(optimizer, schedule),
    )
    trainer.train()

    ours = load_file(folder / "adapter" / "adapter_model.safetensors")
    theirs = {n.replace(".default", ""): p.detach() for n, p in trainable(trainer.model).items()}
    assert ours.keys() == theirs.keys()
    for name, p in theirs.items():
        assert float((ours[name] - p).abs().max()) < 1e-5, name
    losses = [json.loads(line)["loss"] for line in (folder / "train.jsonl").read_text().splitlines()][1:]
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == STEPS and math.isclose(max(abs(a - b) for a, b in zip(losses, logged, strict=True)), 0, abs_tol=1e-4)
    assert max(float(p.abs().max()) for n, p in theirs.items() if "lora_B" in n) > 1e-3, "it has trained"
    assert not [p for p in os.listdir(tmp_path) if p.startswith("checkpoint")]
