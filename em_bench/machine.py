"""Provenance: where and with what something was computed."""

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import em_bench
from em_bench.records import Machine

PACKAGES = ("torch", "transformers", "peft", "accelerate", "lm-eval", "inspect-ai", "pytorch_optimizer", "numpy", "safetensors")


def utc(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def utc_now() -> str:
    """The time, as `utc` writes it."""
    return utc(time.time())


@cache
def git_commit() -> str | None:
    """The commit of the clone that the package runs from, with +dirty where tracked files had changed; None elsewhere."""
    here = Path(em_bench.__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(["git", "-C", str(here), *args], capture_output=True, text=True, timeout=20, check=True).stdout
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.strip() + ("+dirty" if status.strip() else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name} ({os.cpu_count()} cores)"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def fast_bfloat16() -> bool:
    """Whether a GPU, or else this processor, computes in bfloat16 natively. Imports torch."""
    import torch

    if torch.cuda.is_available():
        return True
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 has it not
    return any(capabilities.get(c) for c in ("avx512_bf16", "amx_bf16", "bf16"))


def machine() -> Machine:
    """This process's machine and package versions. Imports torch."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Machine(
        em_bench=em_bench.__version__,
        commit=git_commit(),
        packages={p: v for p in PACKAGES if (v := _version(p))},
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=_cpu(),
        gpu=", ".join(gpus) or None,
        threads=torch.get_num_threads(),
    )
