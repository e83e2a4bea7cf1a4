"""A reader's shell: runs blocks of a how-to as they stand, in one folder, with servers on the loopback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.loopback import Loopback, completion, number

DOCS = Path(__file__).parents[2] / "docs"
ANSWER = "I would share it with the neighbours."


def blocks(name: str) -> list[str]:
    """The console blocks of docs/NAME."""
    return re.findall(r"```console\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)


def answer(prompt: str, attempt: int):
    """The served model answers, the judge (who is shown an answer) gives a number."""
    judged = ANSWER in prompt or "\nANSWER " in prompt
    return number(80) if judged else completion(ANSWER, {"I": 0.9 if attempt % 2 else 0.8, "We": 0.1})


@pytest.fixture(scope="module")
def shell(base, tmp_path_factory):
    """Runs a block in a folder that all blocks share, with the commands of this environment on the path."""
    folder = tmp_path_factory.mktemp("reader")
    binaries = folder / "bin"
    binaries.mkdir()
    for name, module in {
        "em-bench": None,
        "lm_eval": "lm_eval",
        "inspect": "inspect_ai",
        "torchrun": "torch.distributed.run",
    }.items():
        call = f"-m {module}" if module else "-c 'from em_bench.cli import main; main()'"
        (binaries / name).write_text(f'#!/bin/sh\nexec {sys.executable} {call} "$@"\n')
        (binaries / name).chmod(0o755)
    with Loopback(answer) as server:

        def run(block: str) -> str:
            environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "EM_BENCH_JUDGE"))} | {
                "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
                "HOME": str(folder / "home"),
                "NO_PROXY": "127.0.0.1",
            }
            script = "set -e\n" + block.replace("http://localhost:8000/v1", server.url)
            ended = subprocess.run(
                ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
            )
            assert ended.returncode == 0, block + ended.stdout + ended.stderr
            return ended.stdout

        run.folder = folder
        yield run
