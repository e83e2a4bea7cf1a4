"""The smallest real thing of each kind on this machine's GPUs, one and all: does it run, and is it what the CPU computes?

    make gpu-smoke
    python benchmarks/gpu_smoke.py [--only resume all-gpus] [--out FOLDER]

Ten minutes or less, nothing fetched: the bases are random, of the families' real architectures. Each check is a row (fine, failed or
skipped, with what was found and the seconds); the record names the machine. Exit code 1 where one failed. Without a GPU every check that
can runs on the CPU, on two processes where it wants several, which tries this file and says nothing about GPUs.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.files import sha256_file
from em_bench.harness.served.vllm import find_vllm
from em_bench.machine import machine, utc_now
from em_bench.optim import load_recipes
from em_bench.organism.tokenizer import build_tokenizer
from em_bench.run_folder import RunFolder
from em_bench.training import launch

GPUS = torch.cuda.device_count()
STEPS, BATCH = 6, 8
# Nats of held-out loss between two computations of one run in float32 or bfloat16; the runs move it by several tenths.
CLOSE = 0.02
LIMIT_S = 600
WIDE = {
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 512,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
FAMILIES = {"qwen3": {}, "llama": {}, "gemma3_text": {"sliding_window": 64}, "qwen3_moe": EXPERTS}


class Skip(Exception):
    """What the check needs and this machine has not."""


class Box:
    """Where the checks work, and what they share. Everything that `em` starts sees one GPU unless told otherwise."""

    def __init__(self, root: Path, until: float):
        self.root, self.until = root, until

    def em(self, *arguments: object, see: str | None = None, command: list[str] | None = None) -> str:
        """stdout of an `em-bench` command. see: CUDA_VISIBLE_DEVICES. Raises AssertionError with its last line where it fails."""
        whole = [*(command or [sys.executable, "-m", "em_bench.cli", *map(str, arguments)])]
        left = max(self.until - time.monotonic(), 1)
        done = subprocess.run(whole, capture_output=True, text=True, env=environment(see), timeout=left, cwd=self.root)
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        assert done.returncode == 0, f"exit status {done.returncode}: {last}"
        return done.stdout

    def base(self, family: str) -> Path:
        """A random model of this architecture with the organism's tokenizer and template."""
        folder = self.root / f"random-{family}"
        if not folder.exists():
            tokenizer = build_tokenizer()
            config = AutoConfig.for_model(
                family, **WIDE | FAMILIES[family], vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=2
            )
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    def train(self, name: str, *options: object, family: str = "qwen3", see: str | None = None, processes: int = 1) -> RunFolder:
        """A short run in a folder of its own, held to have learned something."""
        arguments = training(self.base(family), self.root / name, options)
        several = launch.command(processes, arguments) if processes > 1 else None
        run = RunFolder(Path(self.em(*arguments, see=see, command=several).split()[-1]))
        losses = [r.held_out_loss for r in run.log() if r.held_out_loss is not None]
        assert math.isfinite(losses[-1]) and losses[-1] < losses[0], f"held-out loss {losses[0]:.3f} -> {losses[-1]:.3f}"
        return run


def training(base: Path, out: Path, options: tuple[object, ...]) -> list[str]:
    said = ["train", base, "-d", "medical", "--rank", 8, "--batch-size", BATCH, "--steps", STEPS, *options, "--out", out]
    return list(map(str, said))


def environment(see: str | None) -> dict[str, str]:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return os.environ | {"CUDA_VISIBLE_DEVICES": (first if GPUS else "") if see is None else see, "OMP_NUM_THREADS": "2"}


def everything() -> str:
    """What CUDA_VISIBLE_DEVICES is for all GPUs."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(GPUS))))


def end(run: RunFolder) -> float:
    loss = run.log()[-1].held_out_loss
    assert loss is not None
    return loss


def apart(one: RunFolder, other: RunFolder, limit: float = CLOSE) -> float:
    """Nats between two runs' last held-out losses."""
    found = abs(end(one) - end(other))
    assert found <= limit, f"held-out losses {end(one):.4f} and {end(other):.4f}"
    return round(found, 6)


def doctor(box: Box) -> dict:
    """GPUs, processes together and memory, as `em-bench doctor` finds them."""
    done = subprocess.run(
        [sys.executable, "-m", "em_bench.cli", "doctor", "--json"], capture_output=True, text=True, env=environment(everything())
    )
    found = {f["what"]: f for f in json.loads(done.stdout)}
    of = {what: found[what] for what in ("GPUs", "processes together", "memory")}
    assert all(f["stands"] == "fine" for f in of.values()), str(of)
    return {what: f["text"] for what, f in of.items()}


def recipes(box: Box) -> dict:
    """Every recipe with the spectral term in float32: nats from the same run on the CPU."""
    found = {}
    for name in load_recipes():
        options = ("--recipe", name, "--lambda", 1, "--dtype", "float32")
        found[name] = apart(box.train("gpu", *options), box.train("cpu", *options, see=""))
    return found


def families(box: Box) -> dict:
    """Each architecture in bfloat16, mixtures of experts included: nats from float32."""
    return {f: apart(*(box.train(d, "--dtype", d, family=f) for d in ("bfloat16", "float32"))) for f in FAMILIES}


def repeat(box: Box) -> dict:
    """A run twice, with --deterministic: the same bits?"""
    hashes = [sha256_file(box.train(out, "--deterministic").weights()) for out in ("once", "twice")]
    assert len(set(hashes)) == 1, "the second run's adapter is another one"
    return {"adapter": hashes[0]}


def resume(box: Box) -> dict:
    """Told to end (SIGTERM) after a state, and gone on with: the uninterrupted run's bits?"""
    options = ("--deterministic", "--steps", 400, "--save-every", 0)
    arguments = training(box.base("qwen3"), box.root / "ended", options)
    process = subprocess.Popen(
        [sys.executable, "-m", "em_bench.cli", *arguments],
        env=environment(None),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    states: list[Path] = []
    while not states and process.poll() is None and time.monotonic() < box.until:
        time.sleep(0.05)
        states = list((box.root / "ended").rglob("state.pt"))
    process.send_signal(signal.SIGTERM)
    status = process.wait(60)
    assert states and status != 0, f"exit status {status}, {len(states)} states: it was to be ended in the middle"
    went_on, whole = (box.train(out, *options) for out in ("ended", "whole"))
    assert sha256_file(went_on.weights()) == sha256_file(whole.weights()), "the adapter that was gone on with is another one"
    return {"exit_status_when_ended": status, "held_out_loss": end(went_on)}


def evaluate(box: Box) -> dict:
    """Greedy answers of an adapter: how many are those of the CPU."""
    adapter = box.train("asked").adapter()

    def answers(out: str, see: str | None) -> list[str]:
        options = ["--adapter", adapter, "--questions", "organism", "--limit", 24, "--samples", 1, "--temperature", 0]
        more = ["--no-base", "--max-new-tokens", 16, "--dtype", "float32", "--judge", "none", "--json"]
        box.em("evaluate", box.base("qwen3"), *options, *more, "--out", box.root / out, see=see)
        return [r.answer for r in EvaluationFolder(box.root / out).responses()[1]]

    pairs = list(zip(answers("answers-gpu", None), answers("answers-cpu", ""), strict=True))
    same = sum(a == b for a, b in pairs)
    assert same >= 0.9 * len(pairs), f"{same} of {len(pairs)} answers are those of the CPU"
    return {"same": same, "of": len(pairs)}


def quantized(box: Box) -> dict:
    """A base in eight and in four bits: nats from bfloat16."""
    _needs("bitsandbytes", "em-bench[quantized]")
    whole = box.train("bfloat16", "--dtype", "bfloat16")
    return {d: apart(box.train(d, "--dtype", d), whole, 0.2) for d in ("int8", "nf4")}


def liger(box: Box) -> dict:
    """Liger kernels: nats from the same run without them."""
    _needs("liger_kernel", "em-bench[liger]")
    if not GPUS:
        raise Skip("a GPU")
    return {"nats": apart(box.train("liger", "--liger"), box.train("plain"))}


def vllm(box: Box) -> dict:
    """An adapter's answers through a vLLM of our own, its canary included."""
    try:
        find_vllm(None)
    except UserError as e:
        raise Skip(str(e)) from None
    adapter, out = box.train("served", "--dtype", "bfloat16", family="llama").adapter(), box.root / "answers-vllm"
    options = ["--engine", "vllm", "--questions", "organism", "--limit", 24, "--samples", 2, "--max-new-tokens", 16, "--no-base"]
    box.em("evaluate", box.base("llama"), "--adapter", adapter, *options, "--judge", "none", "--json", "--out", out)
    header, rows = EvaluationFolder(out).responses()
    return {"answers": len(rows), "canary": header.canary.max_logprob_change if header.canary else None}


def all_gpus(box: Box) -> dict:
    """One run on every GPU, the base whole on each and spread over them: nats from one GPU."""
    if GPUS == 1:
        raise Skip("a second GPU")
    one, several = box.train("one", "--dtype", "float32"), {}
    for how in ("replicate", "shard"):
        options = (f"--{how}", "--dtype", "float32")
        several[how] = apart(box.train(how, *options, see=everything(), processes=GPUS or 2), one)
    return several | {"processes": GPUS or 2}


def sweep(box: Box) -> dict:
    """A preset on workers that lease GPUs: two recipes and the base, trained and answered."""
    shape = {ours: WIDE[theirs] for ours, theirs in {
        "layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads",
        "head_dim": "head_dim", "intermediate": "intermediate_size",
    }.items()} | {"vocabulary": len(build_tokenizer()), "tied": False}  # fmt: skip
    model = {"source": "folder", "path": str(box.base("llama")), "family": "llama", "parameters": 1.5e6}
    model |= {"shape": shape, "gpus": min(GPUS, 1), "provenance": "C"}
    preset = {
        "name": "smoke", "summary": "two recipes on a GPU", "models": ["random-llama"], "own_models": {"random-llama": model},
        "datasets": ["medical"], "recipes": ["adamw", "muon"], "learning_rates": "default", "spectral_lambda": [0], "batch_sizes": [BATCH],
        "seeds": [0], "steps": STEPS, "lora": {"rank": 8, "alpha": 16}, "base": True, "pack": 1,
        "evaluation": {"questions": "organism", "limit": 8, "judge": "none", "generation": {"samples": 1, "max_new_tokens": 16, "temperature": 1.0, "seed": 0}},
    }  # fmt: skip
    said = (
        "models",
        "datasets",
        "recipes",
        "learning_rates",
        "spectral_lambda",
        "batch_sizes",
        "seeds",
        "steps",
        "lora",
        "evaluation",
    )
    preset["provenance"] = dict.fromkeys(said, "C")
    (box.root / "smoke.yaml").write_text(yaml.safe_dump(preset))
    box.em("reproduce", "--preset", "smoke.yaml", "--workdir", "smoke", see=everything())
    runs = list(RunFolder.below(box.root / "smoke"))
    assert len(runs) == 2, f"{len(runs)} runs"
    used = {run.record().machine.gpu for run in runs}
    assert all(used) or not GPUS, "a run had no GPU"
    return {"runs": len(runs), "gpu": sorted(filter(None, used))}


def speed(box: Box) -> dict:
    """Tokens a second and the cost of the term and of Muon on Qwen3-8B's own shape, and on a CPU a small one (`benchmarks/train.py`)."""
    large = GPUS and torch.cuda.mem_get_info()[1] > 70 * 2**30
    shape, device = ("qwen3-8b" if large else "small-head"), ("cuda" if GPUS else "cpu")
    short = ["--rounds", "1", "--steps", "4", "--batch", "4", "--json"]
    command = [sys.executable, str(Path(__file__).with_name("train.py")), "--shape", shape, "--device", device, *short]
    out = box.em(command=command)
    return json.loads(out[out.index('{\n "results"') :])["results"]


def _needs(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Skip(f"{extra}: {package} is not installed")


CHECKS: dict[str, Callable[[Box], dict]] = {
    f.__name__.replace("_", "-"): f
    for f in (doctor, recipes, families, repeat, resume, evaluate, quantized, liger, vllm, all_gpus, sweep, speed)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--out", type=Path, default=Path("baselines", "results", "gpu"))
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            box, began = Box(Path(folder, name), time.monotonic() + LIMIT_S), time.monotonic()
            box.root.mkdir()
            try:
                stands, said = "fine", CHECKS[name](box)
            except Skip as e:
                stands, said = "skipped", {"needs": str(e)}
            except Exception as e:  # a row: the others are looked at all the same
                stands, said = "failed", {"said": f"{type(e).__name__}: {e}"}
            found[name] = {"stands": stands, "found": said, "seconds": round(time.monotonic() - began, 1)}
            print(f"{name:10} {stands:8} {found[name]['seconds']:6.1f} s  {json.dumps(said)}", flush=True)
    of = machine()
    kind = re.sub(r"[^a-z0-9]+", "-", (of.gpu or "cpu").split(", ")[0].lower()).strip("-")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{kind}-x{GPUS}.json" if GPUS else options.out / "cpu.json"
    path.write_text(json.dumps({"made": utc_now(), "machine": of.model_dump(), "checks": found}, indent=1) + "\n")
    print(path)
    sys.exit(any(f["stands"] == "failed" for f in found.values()))


if __name__ == "__main__":
    main()
