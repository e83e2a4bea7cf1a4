"""A worker keeps its base and GPUs from job to job: it outlives jobs that fail, and neither those that spoil it nor who asked for one."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from helpers.sweeps import wait_for

from em_bench.sweep.engine.forkserver import SOCKET, Request, ask
from em_bench.sweep.engine.job import SPOILT, _spoils
from em_bench.training.health import OutOfMemory

SERVER = """
import sys
from em_bench.parent_death import tether
tether(int(sys.argv[1]))
from em_bench.sweep.engine.forkserver import serve
serve(lambda job: 0, lambda: None, worker=(sys.executable, "worker.py"))
"""
WORKER = f"""
import os, socket, sys, time
from em_bench.parent_death import tether
tether(int(sys.argv[1]))
from em_bench.sweep.engine.worker import work
def run(job):
    with open("ran", "a") as f:
        print(job, os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"], file=f)
    print("words of", job)
    if job == "dies":
        os._exit(9)
    while job == "stays" or job.startswith("pair") and open("ran").read().count("pair") < 2:
        time.sleep(0.02)
    return {{"fails": 1, "spoils": {SPOILT}}}.get(job, 0)
work(socket.socket(fileno=int(sys.argv[2])), run)
"""


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A work folder with a warm process and two GPUs; gives what reads the jobs that ran: name -> (process, device, threads)."""
    monkeypatch.chdir(tmp_path)
    Path("worker.py").write_text(WORKER)
    env = {**os.environ, "EM_BENCH_GPUS": "GPU-a,GPU-b", "TMPDIR": str(tmp_path)}
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(os.getpid())], env=env)
    wait_for(Path(SOCKET).exists)
    yield lambda: {job: tuple(rest) for job, *rest in (line.split() for line in Path("ran").read_text().splitlines())}
    server.kill()
    server.wait()


def on(job: str, base: str = "m", gpus: int = 1) -> int | None:
    return ask(Request(job=job, worker=base, gpus=gpus, threads=3))


def test_jobs_share_a_worker_until_one_spoils_it(ran, capfd):
    assert [on(job) for job in ("first", "fails", "second", "spoils", "third", "dies", "fourth")] == [0, 1, 0, SPOILT, 0, 1, 0]
    pid = {job: p for job, (p, *_) in ran().items()}
    assert pid["first"] == pid["fails"] == pid["second"] == pid["spoils"]
    assert pid["third"] == pid["dies"] and len({pid["first"], pid["third"], pid["fourth"]}) == 3
    assert {(device, threads) for _, device, threads in ran().values()} == {("GPU-a", "3")}
    assert [line for line in capfd.readouterr().out.splitlines() if "words" in line] == [f"words of {job}" for job in ran()]
    # Another base that needs both GPUs: the idle worker gives its own up.
    assert on("other", "big", 2) == 0 and ran()["other"][1] == "GPU-a,GPU-b"
    assert not psutil.pid_exists(int(pid["fourth"]))


def test_two_at_once_have_two_workers_and_who_is_gone_leaves_none_at_work(ran, tmp_path):
    together = [threading.Thread(target=on, args=(f"pair-{i}",)) for i in (1, 2)]
    for t in together:
        t.start()
    for t in together:
        t.join(30)
    (one, a, _), (two, b, _) = (ran()[f"pair-{i}"] for i in (1, 2))
    assert one != two and {a, b} == {"GPU-a", "GPU-b"}
    asking = "from em_bench.sweep.engine.forkserver import *; ask(Request(job='stays', worker='m', gpus=1))"
    gone = subprocess.Popen([sys.executable, "-c", asking], cwd=tmp_path)
    wait_for(lambda: "stays" in ran())
    gone.kill()
    gone.wait()
    at_work = ran()["stays"][0]
    assert at_work in (one, two)
    wait_for(lambda: not psutil.pid_exists(int(at_work)), 5)
    assert on("after") == 0 and ran()["after"][0] in {one, two} - {at_work}, "the other worker is still there"


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "spoils"),
    [
        (OutOfMemory("one row of 2048 tokens"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"), True),
        (_caused(ValueError("in a batch"), torch.OutOfMemoryError("CUDA out of memory")), True),
        (RuntimeError("no adapter, because training it failed"), False),
        (ValueError("no such row"), False),
    ],
)
def test_what_leaves_a_process_unfit(error, spoils):
    assert _spoils(error) is spoils


def test_nobody_answers_where_there_is_no_warm_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    assert on("job") is None and time.monotonic() - began < 1
