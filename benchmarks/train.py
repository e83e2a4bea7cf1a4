"""Training speed against TRL's SFTTrainer and transformers' Trainer: same model, rows, batches, adapter, optimiser, threads.

    python benchmarks/train.py [--shape head-heavy small-head] [--threads 1] [--rounds 3] [--json]

Random models of two shapes (TRAINING.md): a vocabulary of 152k on 8 layers of width 512, and 8k on 12 layers of 768. Rows of
log-normal length, three fifths of each an answer. Every trainer makes the same steps one after the other within a round;
a ratio is the median over the rounds of tokens a CPU second. Goals: >= 2 and >= 1.15 times SFTTrainer.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, Trainer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

from em_bench.machine import machine
from em_bench.optim import load_recipes
from em_bench.organism.tokenizer import build_tokenizer
from em_bench.records import BaseRef, DataRef, LoraSpec
from em_bench.training import Encoded, TrainingRows, loop, run_spec
from em_bench.training.adapter import add_adapter, trainable
from em_bench.training.batches import batch_indices
from em_bench.training.execution_options import Options
from em_bench.training.processes import Processes
from em_bench.training.spec import PROJECTIONS

SHAPES = {
    "head-heavy": ({"vocab_size": 151936, "hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1536}, 2.0),
    "small-head": ({"vocab_size": 8192, "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 2304}, 1.15),
}
LORA = LoraSpec(rank=32, alpha=64, targets=PROJECTIONS)


def new_model(shape: dict):
    """A frozen random Qwen3 with an adapter."""
    torch.manual_seed(0)
    config = Qwen3Config(**shape, num_attention_heads=8, num_key_value_heads=4, head_dim=64, tie_word_embeddings=True)
    return add_adapter(Qwen3ForCausalLM(config).requires_grad_(False), LORA, 0)


def random_rows(n: int, vocabulary: int) -> list[Encoded]:
    """Rows of 32 to 384 tokens, median 128."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(128), 0.6, n).astype(int), 32, 384)
    return [Encoded(rng.integers(10, vocabulary, k).tolist(), [i >= 2 * k // 5 for i in range(k)]) for k in lengths]


class Clock(TrainerCallback):
    """CPU seconds at the end of every step."""

    def __init__(self):
        self.at = [time.process_time()]

    def on_step_begin(self, *_, **__):
        if len(self.at) == 1:
            self.at[0] = time.process_time()

    def on_step_end(self, *_, **__):
        self.at.append(time.process_time())


def ours(shape: dict, rows: list[Encoded], steps: int, batch: int, max_tokens: int, folder: Path) -> list[float]:
    """CPU seconds of each step by em_bench's own loop; the last one's include its held-out loss and checkpoint."""
    spec = run_spec(
        BaseRef(name="random", source="path", revision="0"), DataRef(name="random", sha256="0" * 64, rows=len(rows), held_out_rows=1),
        load_recipes()["adamw"].resolve(1e-5), lora=LORA, batch_size=batch, steps=steps,
    )  # fmt: skip
    at: list[float] = []
    loop.measured_steps = lambda spec: [0, spec.steps]  # measure and save at the ends only, as long runs mostly do
    loop.fit(
        new_model(shape), spec, TrainingRows(rows, rows[:1], 1, 0, 0), folder, options=Options(max_tokens=max_tokens, save_every_s=1e9),
        on_step=lambda _: at.append(time.process_time()), peers=Processes(0, 1, torch.device("cpu")),
    )  # fmt: skip
    return [b - a for a, b in itertools.pairwise(at)]


def theirs(kind: str, shape: dict, rows: list[Encoded], steps: int, batch: int, folder: Path) -> list[float]:
    """The same by a Hugging Face trainer."""
    order = [rows[i] for s in range(steps) for i in batch_indices(len(rows), batch, 0, s)]
    columns = [
        {"input_ids": e.input_ids, "labels": [t if m else -100 for t, m in zip(e.input_ids, e.answer_mask, strict=True)]}
        for e in order
    ]
    data = datasets.Dataset.from_list(columns)
    model = new_model(shape)
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-5, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1.0)
    common = {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": batch, "max_grad_norm": 1.0, "save_strategy": "no",
        "train_sampling_strategy": "sequential", "logging_strategy": "no", "report_to": "none", "use_cpu": True, "bf16": False,
        "disable_tqdm": True, "remove_unused_columns": False, "gradient_checkpointing": False,
    }  # fmt: skip
    clock = Clock()
    if kind == "Trainer":

        def pad(examples):
            longest = max(len(e["input_ids"]) for e in examples)
            ids = torch.tensor([e["input_ids"] + [0] * (longest - len(e["input_ids"])) for e in examples])
            labels = torch.tensor([e["labels"] + [-100] * (longest - len(e["labels"])) for e in examples])
            mask = torch.tensor([[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in examples])
            return {"input_ids": ids, "labels": labels, "attention_mask": mask}

        made = Trainer(
            model,
            TrainingArguments(**common),
            train_dataset=data,
            data_collator=pad,
            optimizers=(optimizer, schedule),
            callbacks=[clock],
        )
    else:
        config = SFTConfig(
            **common, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, padding_free=kind.endswith("padding-free")
        )
        tokenizer: PreTrainedTokenizerFast = build_tokenizer()
        made = SFTTrainer(
            model, config, train_dataset=data, processing_class=tokenizer, optimizers=(optimizer, schedule), callbacks=[clock]
        )
    with contextlib.redirect_stdout(sys.stderr):
        made.train()
    return [b - a for a, b in zip(clock.at, clock.at[1:], strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--micro", type=int, default=2, help="rows a pass, of both sides")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {}
    for name in options.shape:
        shape, goal = SHAPES[name]
        rows = random_rows(options.steps * options.batch, shape["vocab_size"])
        ratios: dict[str, list[float]] = {"Trainer": [], "SFTTrainer": []}
        speeds: dict[str, list[float]] = {"em_bench": [], "Trainer": [], "SFTTrainer": []}
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                mine = ours(
                    shape, rows, options.steps, options.batch, options.micro * max(len(r.input_ids) for r in rows), Path(folder)
                )
                kept = range(1, options.steps - 1)  # without warm-up, and without the measurement at the end
                tokens = sum(len(rows[i].input_ids) for k in kept for i in batch_indices(len(rows), options.batch, 0, k))
                speeds["em_bench"].append(tokens / sum(mine[k] for k in kept))
                for kind in ratios:
                    other = theirs(kind, shape, rows, options.steps, options.batch, Path(folder))
                    speeds[kind].append(tokens / sum(other[k] for k in kept))
                    ratios[kind].append(speeds["em_bench"][-1] / speeds[kind][-1])
        found[name] = {
            "tokens_per_cpu_s": {k: statistics.median(v) for k, v in speeds.items()},
            "ratio": {k: statistics.median(v) for k, v in ratios.items()},
            "ratios": ratios,
            "goal": goal,
        }
        if not options.json:
            said = ", ".join(f"{r:.2f} x {k}" for k, r in found[name]["ratio"].items())
            print(
                f"{name}: {found[name]['tokens_per_cpu_s']['em_bench']:.0f} tokens/s, {said} (goal >= {goal} x SFTTrainer)",
                flush=True,
            )
    if options.json:
        print(json.dumps({"results": found, "machine": machine().model_dump()}, indent=1))


if __name__ == "__main__":
    main()
