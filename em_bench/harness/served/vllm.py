"""A vLLM server of our own: one base, adapters loaded at run time, on the loopback, ended with this process whatever kills it."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError

from em_bench.adapter_file import read_config
from em_bench.errors import UserError
from em_bench.harness.served.answers import Server
from em_bench.judging.options import Patience
from em_bench.judging.reply import server_words
from em_bench.training.chat_template import without_clock

PYTHON = "EM_BENCH_VLLM"  # the environment variable that names vLLM's own interpreter
BASE = "base"
DTYPES = ("float32", "bfloat16", "float16")
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vLLM's --max-lora-rank takes no others
ON_GPU = 8  # adapters whose weights are on the GPU at once; more are swapped in as their turn comes
START_S = 1800.0  # of a large model from a slow disk
TAIL = 4  # lines of its log that an error shows


class Engine(NamedTuple):
    """How a server is started. python: an interpreter that has vLLM. log: where all that it says goes. gpus: it is spread over."""

    python: Path
    version: str
    log: Path
    dtype: str = "bfloat16"
    gpus: int = 0
    at_once: int = 64


def find_vllm(python: Path | None) -> tuple[Path, str]:
    """(interpreter, version) of vLLM's environment: `python`, else $EM_BENCH_VLLM. Raises UserError where it has none."""
    named = python or (Path(p) if (p := os.environ.get(PYTHON)) else None)
    if named is None:
        raise UserError(
            f"--engine vllm: where is it? name the interpreter of its environment with --engine-python or {PYTHON} (docs/evaluate.md)"
        )
    ask = "import importlib.metadata as m; print(m.version('vllm'))"
    try:
        said = subprocess.run([str(named), "-c", ask], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise UserError(
            f"{named}: not an interpreter that starts ({type(e).__name__}); name that of vLLM's environment"
        ) from None
    if said.returncode:
        raise UserError(f"{named}: has no vllm; docs/evaluate.md says how to install it")
    return named, said.stdout.strip()


@contextmanager
def vllm_server(folder: Path, adapters: Sequence[Path], engine: Engine) -> Iterator[Server]:
    """A running server of the base in `folder`, for these adapters. Raises UserError with the end of its log where it does not start."""
    if engine.dtype not in DTYPES:
        raise UserError(f"--dtype {engine.dtype}: the vllm engine computes in {', '.join(DTYPES)}; or use --engine transformers")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    engine.log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(engine.python), "-m", "vllm.entrypoints.cli.main", "serve", *_arguments(folder, adapters, engine, port)]
    environment = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},  # ours is of another environment
        **({} if engine.gpus else {"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "2")}),  # GiB
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    tethered = [sys.executable, "-m", "em_bench.parent_death", str(os.getpid()), *command]
    with open(engine.log, "ab") as log:
        # Its own session: Ctrl-C reaches us alone, and we end it in order.
        child = subprocess.Popen(
            tethered, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    root = f"http://127.0.0.1:{port}"

    def alive() -> None:
        if child.poll() is not None:
            raise UserError(
                f"vLLM has ended (exit status {child.returncode}): {_last_words(engine.log)}; all that it said is in {engine.log}"
            )

    async def load(name: str, adapter: Path) -> None:
        body: dict[str, str | bool] = {"lora_name": name, "lora_path": str(adapter.resolve())}
        if read_config(adapter).get("target_parameters"):
            body["is_3d_lora_weight"] = True  # PEFT's form of experts, which vLLM does not tell from its own
        words = await asyncio.to_thread(_post, f"{root}/v1/load_lora_adapter", body)
        if words is not None and "already been loaded" not in words:
            await asyncio.sleep(1)
            alive()  # one that has died has refused nothing
            raise UserError(f"{adapter}: vLLM does not take it: {words}; evaluate it with --engine transformers")

    async def unload(name: str) -> None:
        await asyncio.to_thread(_post, f"{root}/v1/unload_lora_adapter", {"lora_name": name})

    try:
        _wait(root, alive)
        patience = Patience(timeout_s=1800, concurrency=engine.at_once)
        # Its kernels for a CPU answer for the base with an adapter's weights while an adapter's questions are under way
        # (docs/LOG.md, 2026-11-27).
        yield Server(f"{root}/v1", BASE, f"vllm {engine.version}", patience, load, unload, alive, mixes=engine.gpus > 0)
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _arguments(folder: Path, adapters: Sequence[Path], engine: Engine, port: int) -> list[str]:
    """Nothing of the checkpoint's generation_config.json, and our template: its date stands still."""
    from transformers import AutoTokenizer

    template = engine.log.with_suffix(".jinja")
    template.write_text(without_clock(AutoTokenizer.from_pretrained(folder).chat_template), encoding="utf-8")
    out = [str(folder), "--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port), "--dtype", engine.dtype]
    out += ["--generation-config", "vllm", "--chat-template", str(template), "--max-model-len", "auto"]
    out += ["--max-num-seqs", str(max(engine.at_once, 1))]
    if engine.gpus > 1:
        out += ["--tensor-parallel-size", str(engine.gpus)]
    if not engine.gpus:
        out += ["--enforce-eager"]  # compiling for a CPU takes minutes
    if adapters:
        rank = max(_rank(a) for a in adapters)
        out += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(min(len(adapters), ON_GPU))]
        out += ["--max-cpu-loras", str(max(len(adapters), ON_GPU))]
    return out


def _rank(adapter: Path) -> int:
    config = read_config(adapter)
    found = max([int(config.get("r") or 0), *(config.get("rank_pattern") or {}).values()])
    if found > RANKS[-1]:
        raise UserError(f"{adapter}: rank {found}, and vLLM takes up to {RANKS[-1]}; evaluate it with --engine transformers")
    return next(r for r in RANKS if r >= found)


def _wait(root: str, alive) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        alive()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{root}/health", timeout=5):
            return
        time.sleep(0.5)
    raise UserError(f"vLLM does not answer after {START_S:.0f} s; see its log")


def _post(url: str, body: dict) -> str | None:
    """What the server has against it; None where it is done."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600):
            return None
    except HTTPError as e:
        text = e.read().decode("utf-8", "replace")
        try:
            return server_words(json.loads(text)) or f"HTTP {e.code}"
        except ValueError:
            return server_words(text) or f"HTTP {e.code}"
    except OSError as e:
        return f"no answer ({type(e).__name__})"


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()[-400:] if "Error" in line and line.strip()]
    return " | ".join(line[-200:] for line in lines[-TAIL:]) or "it did not say why"
