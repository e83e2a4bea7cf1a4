"""The engine with real processes: killed, resumed, refused, failing. Processes are counted from the operating system."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from helpers.sweeps import CONTROLLER, JOBS, all_done, cells, processes, tries, wait_for


def start(work: Path, seconds: float, **environment: str) -> subprocess.Popen:
    """A controller as the leader of its own process group."""
    command = [sys.executable, str(CONTROLLER), str(work), str(JOBS), str(seconds)]
    env = {**os.environ, **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=env)


def finish(controller: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    out, err = controller.communicate(timeout=60)
    assert controller.returncode == code, err
    return out, err


def jobs_at_work(work: Path) -> Counter:
    """How many processes there are of each job."""
    names = [
        p.info["cmdline"] for p in psutil.process_iter(["cmdline", "cwd"]) if p.info["cwd"] == str(work) and p.info["cmdline"]
    ]
    return Counter(c[3] for c in names if len(c) > 3 and c[1].endswith("sleeping_job.py"))


@pytest.mark.parametrize(
    "victim", [*(pytest.param(v, marks=pytest.mark.slow) for v in ("controller", "snakemake")), "group", "job"]
)
def test_killed_at_work_and_run_again(tmp_path, victim):
    controller = start(tmp_path, 0.4)
    wait_for(lambda: len(cells(tmp_path)) >= 2)
    running = processes(tmp_path)
    assert len(running) >= 3  # controller, Snakemake, a job
    before = cells(tmp_path)
    if victim == "controller":
        os.kill(controller.pid, signal.SIGKILL)
    elif victim == "group":
        os.killpg(controller.pid, signal.SIGKILL)
    elif victim == "snakemake":
        next(p for p in running if "em_bench.sweep.engine.tethered_snakemake" in p.cmdline()).kill()
    else:
        next(p for p in running if p.cmdline()[1].endswith("sleeping_job.py")).kill()
    if victim == "job":  # it is tried once more by the same controller
        finish(controller)
    else:
        controller.communicate(timeout=30)
        wait_for(lambda: not processes(tmp_path), 5)
        assert not all_done(tmp_path)
        finish(start(tmp_path, 0.05))
    assert all_done(tmp_path)
    assert not processes(tmp_path)
    after = cells(tmp_path)
    assert after[: len(before)] == before
    assert Counter(after) == Counter({f"train-{i} {s}": 1 for i in range(1, JOBS + 1) for s in (0, 1)})


@pytest.mark.slow
def test_killed_at_random_moments_until_it_is_done(tmp_path):
    """The whole group or the controller alone, whatever it is doing: nothing is left, nothing runs twice at once or is done twice."""
    moments = random.Random(0)
    for _ in range(12):
        controller = start(tmp_path, 0.3)
        until = time.monotonic() + moments.uniform(0.2, 8)
        while time.monotonic() < until and controller.poll() is None:
            at_work = jobs_at_work(tmp_path)
            assert not at_work or max(at_work.values()) == 1, at_work
            time.sleep(0.05)
        before = cells(tmp_path)
        moments.choice((os.killpg, os.kill))(controller.pid, signal.SIGKILL) if controller.poll() is None else None
        controller.communicate(timeout=30)
        wait_for(lambda: not processes(tmp_path), 10)
        assert cells(tmp_path)[: len(before)] == before
    finish(start(tmp_path, 0.05))
    assert all_done(tmp_path)
    assert Counter(cells(tmp_path)) == Counter({f"train-{i} {s}": 1 for i in range(1, JOBS + 1) for s in (0, 1)})


def test_jobs_at_once_have_devices_of_their_own_and_share_the_threads(tmp_path):
    """Four pretended GPUs and eight cores: two jobs of two GPUs at once, four threads each."""
    gpus = {"GPUS_A_JOB": "2", "EM_BENCH_PRETEND_GPUS": "4", "TMPDIR": str(tmp_path / "leases")}
    (tmp_path / "leases").mkdir()
    controller = start(tmp_path, 1, **gpus)
    wait_for(lambda: len(list(tmp_path.glob("jobs/train-*/tries.jsonl"))) >= 2)
    finish(controller)
    (first, *_), (second, *_), *_ = sorted(
        (tries(tmp_path, f"train-{i}") for i in range(1, JOBS + 1)), key=lambda t: t[0]["began"]
    )
    assert {first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]} == {"0,1", "2,3"}
    for i in range(1, JOBS + 1):
        assert tries(tmp_path, f"train-{i}")[0]["OMP_NUM_THREADS"] == "4"
        assert f"this is train-{i}" in (tmp_path / "jobs" / f"train-{i}" / "log.txt").read_text().splitlines()


def test_interrupt_ends_everything(tmp_path):
    controller = start(tmp_path, 0.4)
    wait_for(lambda: cells(tmp_path))
    os.kill(controller.pid, signal.SIGINT)
    controller.communicate(timeout=30)
    assert controller.returncode != 0
    wait_for(lambda: not processes(tmp_path), 5)


def test_second_run_starts_nothing(tmp_path):
    finish(start(tmp_path, 0.01))
    before, log = cells(tmp_path), (tmp_path / "snakemake.log").read_text()
    finish(start(tmp_path, 0.01))
    assert cells(tmp_path) == before
    assert (tmp_path / "snakemake.log").read_text() == log


def test_a_failed_job_is_named_and_the_others_end(tmp_path):
    (tmp_path / "broken.txt").write_text("train-2")
    out, err = finish(start(tmp_path, 0.01), code=1)
    assert "failed: train-2" in out and "the data of this job is broken" in out and "--only train-2" in out
    assert "done train-1" in err  # plain lines, since stderr is no terminal
    assert [len(tries(tmp_path, job)) for job in ("train-1", "train-2")] == [1, 2]
    assert {p.parent.name for p in tmp_path.glob("jobs/*/done-*.json")} == {"base-m", "train-1", "train-3", "train-4"}
    (tmp_path / "broken.txt").unlink()
    finish(start(tmp_path, 0.01))
    assert all_done(tmp_path)


def test_a_job_that_is_killed_each_time_is_named_too(tmp_path):
    """As the kernel does it to a job that is out of memory: it leaves no last words, its log has them."""
    (tmp_path / "shot.txt").write_text("train-3")
    out, _ = finish(start(tmp_path, 0.01), code=1)
    assert len(tries(tmp_path, "train-3")) == 2
    told = out[out.index("failed: train-3") :]
    assert "    this is train-3" in told and "--only train-3" in told and out.count("failed: ") == 1


def test_what_needs_a_failed_job_is_not_run(tmp_path):
    (tmp_path / "broken.txt").write_text("base-m")
    out, _ = finish(start(tmp_path, 0.01), code=1)
    assert "failed: base-m" in out
    assert "not run: train-1, train-2, train-3, train-4" in out


def test_second_controller_is_refused(tmp_path):
    controller = start(tmp_path, 5)
    wait_for(lambda: (tmp_path / "plan.json").exists())
    _, err = finish(start(tmp_path, 5), code=1)
    assert f"process {controller.pid}) is at work here" in err
    controller.kill()
    controller.communicate()
