"""A small preset, and what can be seen from outside of a sweep at work."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from em_bench.sweep.preset import AXES

MINI = {
    "name": "mini",
    "summary": "two optimisers, two datasets, a handful of steps",
    "models": ["organism-qwen3"],
    "datasets": ["medical", "code"],
    "recipes": ["adamw", "sgd"],
    "learning_rates": {"adamw": [1e-3, 3e-3], "sgd": [1e-2]},
    "spectral_lambda": {"grid": [0.1], "tolerance": 0.1},
    "batch_sizes": [8],
    "seeds": [0],
    "steps": 4,
    "lora": {"rank": 4, "alpha": 8},
    "evaluation": {
        "questions": "organism",
        "variants": ["plain"],
        "generation": {"samples": 1, "max_new_tokens": 20, "temperature": 1.0, "seed": 0},
        "checkpoints": True,
    },
    "base": True,
    "pack": 100,
    "provenance": dict.fromkeys((*AXES, "steps"), "C"),
}


def preset_file(folder: Path, **changes) -> Path:
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump(MINI | changes))
    return path


def command(preset: Path, work: Path, *more: str) -> list[str]:
    main = "from em_bench.cli import main; main()"
    return [sys.executable, "-c", main, "reproduce", "--preset", str(preset), "--workdir", str(work), "--cores", "2", *more]


def reproduce(preset: Path, work: Path, *more: str, code: int = 0) -> subprocess.CompletedProcess:
    ended = subprocess.run(command(preset, work, *more), capture_output=True, text=True, timeout=300)
    assert ended.returncode == code, ended.stderr
    return ended


CONTROLLER = Path(__file__).with_name("controller.py")


JOBS = 4


def processes(work: Path) -> list[psutil.Process]:
    """Every living process that has to do with a work folder: its name is in the arguments, or it works there."""
    found = []
    for p in psutil.process_iter():
        try:
            mine = str(work) in " ".join(p.cmdline()) or p.cwd() == str(work)
            if mine and p.pid != os.getpid() and p.status() != psutil.STATUS_ZOMBIE:
                found.append(p)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
    return found


def cells(work: Path) -> list[str]:
    """The cells that were done, as often as they were done."""
    log = work / "work.log"
    return [line.rsplit(" ", 1)[0] for line in log.read_text().splitlines()] if log.exists() else []


def tries(work: Path, job: str) -> list[dict]:
    """What each try of a job found itself in."""
    return [json.loads(line) for line in (work / "jobs" / job / "tries.jsonl").read_text().splitlines()]


def wait_for(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def all_done(work: Path) -> bool:
    return len(list(work.glob("jobs/*/done-*.json"))) == JOBS + 1
