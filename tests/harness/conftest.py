"""A short real run on the organism, and an adapter that does nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.chat_templates import tokenizers  # noqa: F401
from safetensors.torch import load_file, save_file

from em_bench.training import train


@pytest.fixture(scope="session")
def run(base, spec_for, tmp_path_factory) -> Path:
    """The folder of a run that has learnt something narrow."""
    return train(spec_for("adamw", steps=30, lr=5e-3), base, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def adapter(run) -> Path:
    """A trained adapter."""
    return run / "adapter"


@pytest.fixture(scope="session")
def idle_adapter(adapter, tmp_path_factory) -> Path:
    """An adapter with B = 0, as LoRA is initialised: it changes nothing."""
    folder = tmp_path_factory.mktemp("idle") / "adapter"
    shutil.copytree(adapter, folder)
    path = folder / "adapter_model.safetensors"
    save_file({k: torch.zeros_like(v) if "lora_B" in k else v for k, v in load_file(path).items()}, path)
    return folder


@pytest.fixture(scope="session")
def command(organism_cache, tmp_path_factory):
    """Run a Python module or an em-bench command as users do, in a folder of its own; returns the ended process."""
    home = tmp_path_factory.mktemp("home")

    def call(*arguments: str, code: int | None = 0, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
        main = [sys.executable, "-c", "from em_bench.cli import main; main()"]
        full = main if arguments[0] == "em-bench" else [sys.executable, "-m", arguments[0]]
        settings = {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HOME": str(home),
            "INSPECT_CACHE_DIR": str(home / "inspect"),
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        ended = subprocess.run(
            [*full, *map(str, arguments[1:])],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=cwd or home,
            env=os.environ | settings | environment,
        )
        assert code is None or ended.returncode == code, ended.stdout + ended.stderr
        return ended

    return call
