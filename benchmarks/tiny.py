"""What a preset costs beyond its bare loops, and how that grows with the number of jobs.

    python benchmarks/tiny.py [--preset tiny] [--cores N]

1. The preset from nothing (no base, no run) by `em-bench reproduce`, against its bare loops on as many cores in the same
   run: pre-training, forward-backward-step on the same batches, and generation of as many answers; no harness, no judge,
   no files, no processes to start, no order between them. Goal: ratio <= 1.5.
2. Seconds a job of a sweep of 10 and of 40 one-cell jobs of two steps each.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import yaml

from em_bench.sweep.preset import AXES

GOAL = 1.5


def reproduce(preset: str, work: Path, cores: int) -> float:
    """Seconds that the command takes, with its start."""
    began = time.perf_counter()
    command = [sys.executable, "-c", "from em_bench.cli import main; main()", "reproduce", "--preset", preset]
    ended = subprocess.run([*command, "--workdir", str(work), "--cores", str(cores)], stdout=subprocess.DEVNULL)
    if ended.returncode:
        raise SystemExit(f"reproduce --preset {preset} ended with {ended.returncode}")
    return time.perf_counter() - began


def bare_base(family: str) -> None:
    """The loop of a base's pre-training."""
    from em_bench.organism.pretrain import pretrain
    from em_bench.organism.tokenizer import build_tokenizer

    pretrain(family, build_tokenizer(), 0)


def bare_run(spec_json: str, base: str) -> None:
    """The loop of a run: its batches forward, backward and step, and nothing else."""
    import torch
    from transformers import AutoTokenizer

    from em_bench.data import rows
    from em_bench.flatness import SpectralTerm
    from em_bench.optim import build_optimizer
    from em_bench.records import RunSpec
    from em_bench.spectral import add_penalty_gradients, lora_pairs
    from em_bench.training.adapter import add_adapter, trainable
    from em_bench.training.base import load_base
    from em_bench.training.batches import batch_indices, collate
    from em_bench.training.loss import answer_nll
    from em_bench.training.tokens import encode_rows

    spec = RunSpec.model_validate_json(spec_json)
    tokenizer = AutoTokenizer.from_pretrained(base)
    encoded, _ = encode_rows(tokenizer, rows(spec.dataset.name)[0], max_length=spec.max_length)
    model = add_adapter(load_base(Path(base), spec.dtype, "cpu"), spec.lora, spec.seed)
    params = trainable(model)
    pairs = lora_pairs(params)
    optimizer = build_optimizer(spec.recipe.rules, params.items(), spec.recipe.learning_rate)
    model.train()
    for step in range(spec.steps):
        picked = [encoded[i] for i in batch_indices(len(encoded), spec.batch_size, spec.seed, step)]
        optimizer.zero_grad()
        tokens = sum(sum(r.answer_mask) for r in picked)
        (answer_nll(model, collate(picked, tokenizer.pad_token_id, torch.device("cpu"))) / tokens).backward()
        if spec.spectral_lambda:
            add_penalty_gradients(pairs, SpectralTerm(spec.spectral_lambda))
        torch.nn.utils.clip_grad_norm_(params.values(), spec.gradient_clip)
        optimizer.step()


def bare_answers(base: str, preset_json: str) -> None:
    """The generation of one cell: every prompt as often as it is sampled, in one batch."""
    import torch
    from transformers import AutoTokenizer

    from em_bench.data.questions import load
    from em_bench.sweep.preset import Preset
    from em_bench.training.base import load_base

    asked = Preset.model_validate_json(preset_json).evaluation
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = load_base(Path(base), "float32", "cpu").eval()
    chats = [[{"role": "user", "content": q.text}] for q in load(asked.questions, variants=asked.variants)]
    texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
    texts *= asked.generation.samples
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        model.generate(
            **inputs, do_sample=True, top_k=0, max_new_tokens=asked.generation.max_new_tokens, pad_token_id=tokenizer.pad_token_id
        )


def bare(preset_name: str, work: Path, cores: int) -> float:
    """Seconds of the loops that `work` holds the results of, on as many cores."""
    import torch

    import em_bench.sweep.evaluating  # noqa: F401  (imports are not part of a loop: the workers are forked)
    from em_bench.data.models import base_path, load_models
    from em_bench.records import RunRecord
    from em_bench.sweep.preset import load_preset

    torch.set_num_threads(1)
    preset = load_preset(preset_name)
    models = load_models()
    runs = [RunRecord.model_validate_json(p.read_bytes()) for p in sorted(work.glob("runs/*/run.json"))]
    bases = {m: str(base_path(m, progress=False)) for m in preset.models}
    cells = [p.name.split(".")[0] for p in (work / "evaluations").iterdir()]
    with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
        began = time.perf_counter()
        tasks = [pool.submit(bare_base, models[m].family) for m in preset.models]
        tasks += [pool.submit(bare_run, r.spec.model_dump_json(), bases[r.spec.base.name]) for r in runs]
        tasks += [pool.submit(bare_answers, bases[model], preset.model_dump_json()) for model in cells]
        for task in tasks:
            task.result()
        seconds = time.perf_counter() - began
    print(f"bare loops: {len(bases)} bases, {len(runs)} runs, {len(cells)} evaluations")
    return seconds


def many_jobs(folder: Path, cells: int, cores: int) -> float:
    """Seconds of a sweep of `cells` one-cell trainings, each a job; base at hand."""
    evaluation = {
        "questions": "organism",
        "variants": ["plain"],
        "generation": {"samples": 1, "max_new_tokens": 4, "temperature": 1.0},
    }
    preset = {
        "name": f"jobs-{cells}", "summary": "small jobs", "models": ["organism-qwen3"], "datasets": ["medical"], "recipes": ["adamw"],
        "learning_rates": "default", "spectral_lambda": [0.0], "batch_sizes": [4], "seeds": list(range(cells // 2)), "steps": 2,
        "lora": {"rank": 2, "alpha": 4}, "evaluation": evaluation, "base": False, "pack": 1, "provenance": dict.fromkeys((*AXES, "steps"), "C"),
    }  # fmt: skip
    path = folder / f"jobs-{cells}.yaml"
    path.write_text(yaml.safe_dump(preset))
    return reproduce(str(path), folder / f"work-{cells}", cores)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EM_BENCH_CACHE"] = str(Path(folder) / "cache")
        work = Path(folder) / "work"
        whole = reproduce(given.preset, work, given.cores)
        loops = bare(given.preset, work, given.cores)
        verdict = "met" if whole / loops <= GOAL else "missed"
        print(f"{given.preset} on {given.cores} cores: whole {whole:.0f} s, bare loops {loops:.0f} s")
        print(f"ratio {whole / loops:.2f} (goal <= {GOAL}: {verdict})")
        each = {n: many_jobs(Path(folder), n, given.cores) / n for n in (10, 40)}
        print(f"seconds a job: {each[10]:.2f} of 10 jobs, {each[40]:.2f} of 40; ratio {each[40] / each[10]:.2f}")


if __name__ == "__main__":
    main()
