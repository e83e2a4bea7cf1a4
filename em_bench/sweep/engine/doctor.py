"""What a machine lacks for the large sweeps: each thing looked at once, and said with what mends it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from em_bench.data.hub import pinned
from em_bench.data.models import load_models
from em_bench.data.pins import load_pins
from em_bench.data.upstream import ACCEPT, cached_path
from em_bench.errors import UserError
from em_bench.files import cache_dir
from em_bench.harness.served.vllm import find_vllm
from em_bench.sweep.engine.gpu_lease import devices

GIB = 2**30
DISK_GIB, MEMORY_GIB = 200, 16  # a base of 32B with its adapters; a job that holds no large base
HUB_S = 10.0  # the hub's patience with one model
ALL_REDUCE = """
import torch, torch.distributed as dist
dist.init_process_group("{backend}")
cuda = dist.get_backend() == "nccl"
if cuda: torch.cuda.set_device(dist.get_rank())
t = torch.full((1024,), float(dist.get_rank() + 1), device="cuda" if cuda else "cpu")
dist.all_reduce(t)
n = dist.get_world_size()
assert bool((t == n * (n + 1) / 2).all())
dist.destroy_process_group()
"""


class Finding(NamedTuple):
    """A row. missing: it keeps something from working; the text says what mends it."""

    what: str
    stands: Literal["fine", "missing"]
    text: str


def examine(models: Sequence[str] = ()) -> Iterator[Finding]:
    """Look at everything, of the hub at `models` (the paper's twelve where none is named). Nothing is changed."""
    yield from _gpus()
    yield _processes(len(devices()))
    yield _memory()
    for path in dict.fromkeys((cache_dir(), Path.cwd())):
        yield _disk(path)
    yield from _hub(models)
    yield _judge()
    yield from _terms()
    yield _engine()


def _gpus() -> Iterator[Finding]:
    import torch

    leased = devices()
    if not torch.cuda.is_available():
        if leased:
            text = f"the driver shows {len(leased)} and torch {torch.__version__} none; install torch for this CUDA, or look at CUDA_VISIBLE_DEVICES"
            yield Finding("GPUs", "missing", text)
        else:
            yield Finding("GPUs", "fine", "none: organisms and small models run on the CPU; sweeps of larger ones need one")
        return
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        text = f"{torch.cuda.get_device_name(i)}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
        if free < 0.9 * total:
            yield Finding(f"GPU {i}", "missing", f"{text}; somebody uses it: see nvidia-smi")
        else:
            yield Finding(f"GPU {i}", "fine", text)


def _processes(gpus: int) -> Finding:
    """A sum over all GPUs by NCCL; without two of them over two processes on the CPU, by gloo."""
    backend, n = ("nccl", gpus) if gpus > 1 else ("gloo", 2)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", "--no-python"]
    command = [*run, sys.executable, "-c", ALL_REDUCE.format(backend=backend)]
    what = f"{n} GPUs together" if gpus > 1 else "processes together"
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        return Finding(
            what, "missing", f"a sum by {backend} hangs; try NCCL_P2P_DISABLE=1, or look at the links: nvidia-smi topo -m"
        )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no word"])[-1][:160]
        return Finding(what, "missing", f"a sum by {backend} fails ({last}); run it with NCCL_DEBUG=INFO")
    return Finding(what, "fine", f"a sum over {n} processes by {backend} is right")


def _memory() -> Finding:
    free = psutil.virtual_memory().available / GIB
    if free < MEMORY_GIB:
        return Finding("memory", "missing", f"{free:.0f} GiB free; large bases are read through it: have {MEMORY_GIB} or more")
    return Finding("memory", "fine", f"{free:.0f} GiB free, {os.cpu_count()} cores")


def _disk(path: Path) -> Finding:
    there = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(there).free / GIB
    if free < DISK_GIB:
        return Finding(
            "disk",
            "missing",
            f"{free:.0f} GiB free at {path}; `em-bench plan` says what a sweep takes: set EM_BENCH_CACHE and HF_HOME, or --workdir",
        )
    return Finding("disk", "fine", f"{free:.0f} GiB free at {path}")


def _hub(names: Sequence[str], info: Callable | None = None) -> Iterator[Finding]:
    """Whether each model can be fetched: its licence accepted, the token valid. Stops asking where the hub is out of reach."""
    from huggingface_hub import model_info
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    ask = info or model_info
    for name, model in load_models().items():
        if not model.hub_id or (name not in names if names else model.extra):
            continue
        if pinned(model.hub_id):
            yield Finding(name, "fine", f"here, pinned at {pinned(model.hub_id)}")
            continue
        try:
            commit = ask(model.hub_id, revision=model.revision, timeout=HUB_S).sha
            yield Finding(name, "fine", f"on the hub, newest commit {commit}; its first use pins it")
        except GatedRepoError:
            yield Finding(
                name,
                "missing",
                f"accept its licence at huggingface.co/{model.hub_id}, and set HF_TOKEN to a token of that account",
            )
        except HfHubHTTPError as e:
            yield Finding(name, "missing", f"the hub refuses it ({type(e).__name__}); check HF_TOKEN")
        except Exception as e:  # every transport has its own errors
            yield Finding(
                "hub",
                "missing",
                f"not within reach ({type(e).__name__}); set a proxy or HF_ENDPOINT, or fetch elsewhere and copy HF_HOME with CACHE/hub",
            )
            return


def _judge() -> Finding:
    if os.environ.get("OPENAI_API_KEY"):
        at = os.environ.get("OPENAI_BASE_URL", "its usual address")
        return Finding("judge", "fine", f"a key for openai:MODEL at {at}; `em-bench judge probe` asks it")
    return Finding(
        "judge", "missing", "no OPENAI_API_KEY for openai:MODEL; set it, or name an endpoint or local:MODEL with --judge"
    )


def _terms() -> Iterator[Finding]:
    accepted = os.environ.get(ACCEPT, "").split(",")
    open_: dict[str, list[str]] = {}
    for name, pin in load_pins().pins.items():
        if pin.terms and pin.terms not in accepted and not cached_path(name).exists():
            open_.setdefault(pin.terms, []).append(name)
    for terms, names in open_.items():
        yield Finding(
            "data",
            "missing",
            f"{', '.join(names)}: read the terms ({terms}) with `em-bench data show`, then set {ACCEPT}={terms}",
        )
    if not open_:
        yield Finding("data", "fine", "no terms are open")


def _engine() -> Finding:
    try:
        python, version = find_vllm(None)
    except UserError as e:
        return Finding("engine", "missing", f"no vLLM: {e}")
    return Finding("engine", "fine", f"vLLM {version} at {python}")
