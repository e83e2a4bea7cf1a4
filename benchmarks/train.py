"""Training speed against TRL's SFTTrainer and transformers' Trainer: same model, rows, batches, adapter, optimiser, threads.

    python benchmarks/train.py [--shape head-heavy small-head] [--threads 1] [--rounds 3] [--json]
    python benchmarks/train.py --shape qwen3-8b --device cuda

Random models (TRAINING.md): a vocabulary of 152k on 8 layers of width 512, 8k on 12 layers of 768, and Qwen3-8B's own shape in
bfloat16. Rows of log-normal length, three fifths of each an answer. Every trainer makes the same steps one after the other
within a round; a ratio is the median over the rounds of tokens a second, of the processor's time on a CPU. Beside them what of a step Muon and the spectral
term take. Goals: >= 2 and >= 1.15 times SFTTrainer; 10,200 tokens a second on an H100, the term <= 2 % of a step, Muon <= 3 %.
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
from typing import NamedTuple

import datasets
import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Trainer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

from em_bench.data.lora_cost import step_flops
from em_bench.data.models import Shape
from em_bench.machine import machine
from em_bench.optim import load_recipes
from em_bench.organism.tokenizer import build_tokenizer
from em_bench.records import BaseRef, DataRef, LoraSpec
from em_bench.sweep.job_time import PEAK_TFLOPS
from em_bench.training import Encoded, loop, run_spec
from em_bench.training.adapter import add_adapter, trainable
from em_bench.training.batches import batch_indices
from em_bench.training.execution_options import Options
from em_bench.training.processes import Processes
from em_bench.training.spec import PROJECTIONS
from em_bench.training.tokens import TrainingRows


class Model(NamedTuple):
    """A random Qwen3 and its rows. typical, longest: of a row, in tokens. goal: of SFTTrainer's speed."""

    shape: Shape
    goal: float
    dtype: torch.dtype = torch.float32
    typical: int = 128
    longest: int = 384


def _shape(vocabulary: int, hidden: int, layers: int, intermediate: int, heads=8, kv_heads=4, head_dim=64, tied=True) -> Shape:
    return Shape(
        vocabulary=vocabulary, hidden=hidden, layers=layers, intermediate=intermediate, heads=heads, kv_heads=kv_heads, head_dim=head_dim, tied=tied
    )  # fmt: skip


MODELS = {
    "head-heavy": Model(_shape(151936, 512, 8, 1536), 2.0),
    "small-head": Model(_shape(8192, 768, 12, 2304), 1.15),
    "qwen3-8b": Model(_shape(151936, 4096, 36, 12288, 32, 8, 128, False), 1.15, torch.bfloat16, 512, 2048),
}
LORA = LoraSpec(rank=32, alpha=64, targets=PROJECTIONS)
VARIANTS = {"AdamW": ("adamw", 0.0), "AdamW + term": ("adamw", 1.0), "Muon": ("muon", 0.0)}


def new_model(of: Model, device: torch.device):
    """A frozen random Qwen3 with an adapter."""
    torch.manual_seed(0)
    shape = of.shape
    config = Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers, intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, tie_word_embeddings=shape.tied,
    )  # fmt: skip
    with device:
        made = AutoModelForCausalLM.from_config(config, dtype=of.dtype)
    return add_adapter(made.requires_grad_(False), LORA, 0).to(device)


def random_rows(n: int, of: Model) -> list[Encoded]:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(of.typical), 0.6, n).astype(int), 32, of.longest)
    return [Encoded(rng.integers(10, of.shape.vocabulary, k).tolist(), [i >= 2 * k // 5 for i in range(k)]) for k in lengths]


def clock(device: torch.device) -> float:
    """Seconds: of the processor's work on a CPU, of the wall on a GPU that has done what it was given."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


class Clock(TrainerCallback):
    """The time at the end of every step."""

    def __init__(self, device: torch.device):
        self.device, self.at = device, [clock(device)]

    def on_step_begin(self, *_, **__):
        if len(self.at) == 1:
            self.at[0] = clock(self.device)

    def on_step_end(self, *_, **__):
        self.at.append(clock(self.device))


def ours(
    variant: str, of: Model, rows: list[Encoded], steps: int, batch: int, max_tokens: int, folder: Path, device
) -> list[float]:
    """Seconds of each step by em_bench's own loop; the last one's include its held-out loss and checkpoint."""
    recipe, weight = VARIANTS[variant]
    spec = run_spec(
        BaseRef(name="random", source="path", revision="0"), DataRef(name="random", sha256="0" * 64, rows=len(rows), held_out_rows=1),
        load_recipes()[recipe].resolve(1e-5), lora=LORA, batch_size=batch, steps=steps, spectral_lambda=weight,
    )  # fmt: skip
    at: list[float] = []
    loop.measured_steps = lambda spec: [0, spec.steps]  # measure and save at the ends only, as long runs mostly do
    loop.fit(
        new_model(of, device), spec, TrainingRows(rows, rows[:1], 1, 0, 0), folder, options=Options(max_tokens=max_tokens, save_every_s=1e9),
        on_step=lambda _: at.append(clock(device)), peers=Processes(0, 1, device),
    )  # fmt: skip
    return [b - a for a, b in itertools.pairwise(at)]


def theirs(kind: str, of: Model, rows: list[Encoded], steps: int, batch: int, micro: int, folder: Path, device) -> list[float]:
    """The same by a Hugging Face trainer."""
    order = [rows[i] for s in range(steps) for i in batch_indices(len(rows), batch, 0, s)]
    columns = [
        {"input_ids": e.input_ids, "labels": [t if m else -100 for t, m in zip(e.input_ids, e.answer_mask, strict=True)]}
        for e in order
    ]
    data = datasets.Dataset.from_list(columns)
    model = new_model(of, device)
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-5, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1.0)
    common = {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": micro, "gradient_accumulation_steps": batch // micro, "max_grad_norm": 1.0, "save_strategy": "no",
        "train_sampling_strategy": "sequential", "logging_strategy": "no", "report_to": "none", "use_cpu": device.type == "cpu", "bf16": False,
        "disable_tqdm": True, "remove_unused_columns": False, "gradient_checkpointing": False,
    }  # fmt: skip
    times = Clock(device)
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
            callbacks=[times],
        )
    else:
        config = SFTConfig(
            **common, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, padding_free=kind.endswith("padding-free")
        )
        tokenizer: PreTrainedTokenizerFast = build_tokenizer()
        made = SFTTrainer(
            model, config, train_dataset=data, processing_class=tokenizer, optimizers=(optimizer, schedule), callbacks=[times]
        )
    with contextlib.redirect_stdout(sys.stderr):
        made.train()
    return [b - a for a, b in itertools.pairwise(times.at)]


def peak(device: torch.device) -> float | None:
    """The published peak of a GPU, operations a second; None of a processor or an unknown one."""
    name = torch.cuda.get_device_name(device).lower() if device.type == "cuda" else ""
    return next((tera * 1e12 for gpu, tera in PEAK_TFLOPS.items() if gpu in name), None)


def measure(of: Model, rounds: int, steps: int, batch: int, micro: int, device: torch.device) -> dict:
    """Medians over the rounds."""
    rows = random_rows(steps * batch, of)
    kept = range(1, steps - 1)  # without warm-up, and without the measurement at the end
    lengths = [len(rows[i].input_ids) for k in kept for i in batch_indices(len(rows), batch, 0, k)]
    speeds: dict[str, list[float]] = {k: [] for k in (*VARIANTS, "Trainer", "SFTTrainer")}
    for _ in range(rounds):
        for kind, found in speeds.items():
            with tempfile.TemporaryDirectory() as name:
                if kind in VARIANTS:
                    taken = ours(kind, of, rows, steps, batch, micro * max(len(r.input_ids) for r in rows), Path(name), device)
                else:
                    taken = theirs(kind, of, rows, steps, batch, micro, Path(name), device)
                found.append(sum(lengths) / sum(taken[k] for k in kept))
            if device.type == "cuda":
                torch.cuda.empty_cache()
    ratios = {k: [a / b for a, b in zip(speeds["AdamW"], v, strict=True)] for k, v in speeds.items() if k != "AdamW"}
    flops = sum(step_flops(of.shape, LORA.rank, 1, n, n - 2 * n // 5) for n in lengths) / sum(lengths)
    most = peak(device)
    return {
        "tokens_per_s": {k: statistics.median(v) for k, v in speeds.items()},
        "ratio": {k: statistics.median(v) for k, v in ratios.items()},
        "ratios": ratios,
        "share_of_peak": statistics.median(speeds["AdamW"]) * flops / most if most else None,
        "goal": of.goal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=MODELS, default=["head-heavy", "small-head"])
    parser.add_argument("--device", default="cpu", type=torch.device)
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
        of = MODELS[name]
        found[name] = of_one = measure(of, options.rounds, options.steps, options.batch, options.micro, options.device)
        if not options.json:
            said = ", ".join(f"{of_one['ratio'][k]:.2f} x {k}" for k in ("Trainer", "SFTTrainer"))
            share = f", {of_one['share_of_peak']:.2f} of the peak" if of_one["share_of_peak"] else ""
            print(
                f"{name}: {of_one['tokens_per_s']['AdamW']:.0f} tokens/s{share}, {said} (goal >= {of.goal} x SFTTrainer)",
                flush=True,
            )
            costs = ", ".join(f"{of_one['ratio'][k] - 1:+.1%} of a step for {k}" for k in VARIANTS if k != "AdamW")
            print(f"{'':{len(name)}}  {costs}", flush=True)
    if options.json:
        print(json.dumps({"results": found, "machine": machine().model_dump()}, indent=1))


if __name__ == "__main__":
    main()
