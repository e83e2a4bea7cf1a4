"""The real command line without its start-up: a fork server imports torch once, and every command is a fork of it.

What runs is `em_bench.cli.main` with the arguments in sys.argv, in a process of its own that can be killed with -9; several of
them with torchrun's environment variables are a distributed run.
"""

import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["commands", "em_bench.training", "em_bench.cli.train", "em_bench.optim", "peft", "pytorch_optimizer"]
)


def start(args: list, log: Path, **env: str) -> multiprocessing.Process:
    """Start `em-bench ARGS`; its stdout and stderr go to `log`."""
    env = {"OMP_NUM_THREADS": "1", **{k: os.environ[k] for k in ("EM_BENCH_CACHE",) if k in os.environ}, **env}
    process = FORKS.Process(target=_main, args=([str(a) for a in args], str(log), env))
    process.start()
    return process


def run(args: list, log: Path, **env: str) -> tuple[int, str]:
    """Exit status and output of `em-bench ARGS`."""
    process = start(args, log, **env)
    process.join(120)
    return process.exitcode, log.read_text()


def start_ranks(args: list, log: Path, ranks: int = 2) -> list[multiprocessing.Process]:
    """The command on several processes, as torchrun starts them on one machine."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(args, log.with_name(f"{log.name}.{rank}"), RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(ranks)
    ]


def run_ranks(args: list, log: Path, ranks: int = 2) -> tuple[list[int], str]:
    """Exit statuses and the outputs one after the other."""
    processes = start_ranks(args, log, ranks)
    for p in processes:
        p.join(120)
    return [p.exitcode for p in processes], "".join(log.with_name(f"{log.name}.{r}").read_text() for r in range(ranks))


def kill_at(processes: list[multiprocessing.Process], runs: Path, lines: int) -> None:
    """Kill -9 all processes once the log of the run in the making has at least `lines` lines."""
    deadline = time.monotonic() + 60
    while sum(p.read_bytes().count(b"\n") for p in runs.glob(".*.partial/train.jsonl")) < lines:
        assert time.monotonic() < deadline and processes[0].is_alive(), "the run ended before it could be killed"
        time.sleep(0.001)
    for p in processes:
        p.kill()
    for p in processes:
        p.join()


def _main(args: list[str], log: str, env: dict[str, str]) -> None:
    os.environ.update(env)
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
    import torch

    torch.set_num_threads(1)
    sys.argv = ["em-bench", *args]
    from em_bench.cli import main

    main()
