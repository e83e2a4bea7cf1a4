"""GPUs are leased exclusively, on devices that are pretended here; jobs on several of them run as ranks that die with their job."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from helpers.sweeps import MINI, processes, wait_for

from em_bench.cli import build
from em_bench.errors import UserError
from em_bench.files import read_record
from em_bench.records import Results, RunRecord
from em_bench.sweep.engine.gpu_lease import devices, leased
from em_bench.sweep.engine.profile import ExecutionProfile, load_profile
from em_bench.sweep.engine.snakemake_run import check
from em_bench.sweep.jobs import Job

HOLDER = """
import sys, time
from pathlib import Path
from em_bench.sweep.engine.gpu_lease import leased
folder, n = Path(sys.argv[1]), int(sys.argv[2])
with leased(n, ["0", "1", "2", "3"], folder) as mine:
    print(",".join(mine), flush=True)
    time.sleep(float(sys.argv[3]))
"""


def holder(folder: Path, n: int, seconds: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), str(n), str(seconds)], stdout=subprocess.PIPE, text=True)


def test_leases_are_disjoint_and_end_with_their_process(tmp_path):
    held = [holder(tmp_path, n, 60) for n in (1, 2, 1)]
    mine = [set(p.stdout.readline().strip().split(",")) for p in held]
    assert set.union(*mine) == {"0", "1", "2", "3"} and sum(map(len, mine)) == 4
    waiting = holder(tmp_path, 2, 0)
    time.sleep(1)
    assert waiting.poll() is None
    held[1].kill()
    assert set(waiting.stdout.readline().strip().split(",")) == mine[1]
    for p in (*held, waiting):
        p.kill()
        p.wait()
        p.stdout.close()


def test_nobody_holds_a_part_of_what_he_waits_for(tmp_path):
    with leased(3, ["0", "1", "2", "3"], tmp_path) as mine:
        assert mine == ("0", "1", "2")
        waiting = holder(tmp_path, 2, 0)
        with leased(1, ["0", "1", "2", "3"], tmp_path) as last:
            assert last == ("3",)
    assert waiting.communicate(timeout=30)[0]


def test_devices(monkeypatch):
    monkeypatch.setenv("EM_BENCH_PRETEND_GPUS", "4")
    assert devices() == ("0", "1", "2", "3") and devices(2) == ("0", "1") and devices(0) == ()
    with pytest.raises(UserError, match="--gpus 5: this machine shows 4 GPUs; give at most 4"):
        devices(5)


A, B, C, M1, M2 = "GPU-aa11-01", "GPU-bb22-02", "GPU-cc33-03", "MIG-d1-01", "MIG-d2-02"
LISTED = f"""GPU 0: NVIDIA H100 (UUID: {A})
GPU 1: NVIDIA H100 (UUID: {B})
  MIG 3g.40gb     Device  0: (UUID: {M1})
  MIG 3g.40gb     Device  1: (UUID: {M2})
GPU 2: NVIDIA H100 (UUID: {C})
"""


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, (A, M1, M2, C)),  # a split GPU is its instances
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("2,0", (C, A)),
        ("2,-1,0", (C,)),  # CUDA stops reading at what is none
        ("0,7,2", (A,)),
        ("0, GPU-cc", (A, C)),  # a UUID may be cut where it is unambiguous
        ("GPU-", ()),
        (M2, (M2,)),
        ("1", (M1,)),
        ("0,0", ()),
    ],
)
def test_devices_are_what_cuda_would_see_by_uuid(tmp_path, monkeypatch, visible, found):
    monkeypatch.delenv("EM_BENCH_PRETEND_GPUS")
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices() == found


@pytest.mark.parametrize(("visible", "found"), [("2,5", ("2", "5")), ("-1", ()), ("", ()), ("NoDevFiles", ()), (A, (A,))])
def test_without_a_driver_that_lists_them_the_words_count(tmp_path, monkeypatch, visible, found):
    monkeypatch.delenv("EM_BENCH_PRETEND_GPUS")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices() == found


def test_instances_of_a_split_gpu_do_not_work_together():
    job = Job(id="train-big", kind="train", key="0", code="0", estimate_s=1, gpus=2)
    with pytest.raises(UserError, match="MIG.* do not work together"):
        check([job], ExecutionProfile(1, (M1, M2)))


def test_profiles(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_BENCH_PRETEND_GPUS", "8")
    assert load_profile("box") == ExecutionProfile(32, tuple("01234567"), load_profile("box").folder)
    assert load_profile("box", cores=4, gpus=2).gpus == ("0", "1")
    slurm = load_profile("slurm")
    assert (slurm.executor, slurm.jobs, slurm.gpus, slurm.surroundings.gpus_per_node) == ("slurm", 100, (), 8)
    with pytest.raises(UserError, match="leave it away"):
        load_profile("slurm", gpus=2)
    with pytest.raises(UserError, match="name one of local, box, slurm, or a folder"):
        load_profile(str(tmp_path))
    (tmp_path / "config.yaml").write_text("executor: slurm\n")
    (tmp_path / "em_bench.yaml").write_text("gpus_a_node: 4\n")
    with pytest.raises(UserError, match="em_bench.yaml: gpus_a_node: Extra inputs"):
        load_profile(str(tmp_path))
    (tmp_path / "config.yaml").write_text("- a list")
    with pytest.raises(UserError, match="not a mapping"):
        load_profile(str(tmp_path))


def test_a_job_that_needs_more_gpus_than_there_are_is_refused_before_anything_runs():
    job = Job(id="train-big", kind="train", key="0", code="0", estimate_s=1, gpus=4)
    check([job], ExecutionProfile(1, ("0", "1", "2", "3")))
    with pytest.raises(UserError, match="train-big needs 4 GPUs and this machine gives 1"):
        check([job], ExecutionProfile(1, ("0",)))


def two_ranks(folder: Path, **changes) -> list[str]:
    """The command of a sweep whose every run takes two of four pretended GPUs."""
    axes = {"datasets": ["medical"], "recipes": ["adamw"], "learning_rates": "default", "spectral_lambda": [0], "base": False}
    (folder / "mini.yaml").write_text(yaml.safe_dump(MINI | axes | {"gpus": {"organism-qwen3": 2}} | changes))
    main = "from em_bench.cli import main; main()"
    return [
        sys.executable,
        "-c",
        main,
        "reproduce",
        "--preset",
        str(folder / "mini.yaml"),
        "--workdir",
        str(folder / "work"),
        "--gpus",
        "4",
    ]


@pytest.mark.slow
def test_a_run_on_two_gpus_and_kill_of_one_rank(base, tmp_path, monkeypatch):
    """kill -9 of a rank: the job fails, no rank is left, the same controller tries once more and ends well."""
    monkeypatch.setenv("EM_BENCH_PRETEND_GPUS", "4")
    work = tmp_path / "work"
    controller = subprocess.Popen(two_ranks(tmp_path, steps=150), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def ranks() -> list[psutil.Process]:
        return [p for p in processes(work) if "rank" in p.cmdline() and "agent" not in p.cmdline()]

    wait_for(lambda: list(work.glob("runs/.*.partial/train.jsonl")), 120)
    assert len(ranks()) == 2
    ranks()[1].send_signal(signal.SIGKILL)
    _, err = controller.communicate(timeout=400)
    assert controller.returncode == 0, err
    assert not processes(work)
    results = read_record(work / "results.json", Results)
    run = read_record(work / "runs" / results.cells[0].run_id / "run.json", RunRecord)
    assert run.options["processes"] == "2" and len(list(work.glob("runs/*/run.json"))) == 1
    assert "GPUs 0,1" in next(work.glob("jobs/train-*/log.txt")).read_text()


@pytest.mark.slow
def test_kill_of_the_group_leaves_no_rank(base, tmp_path, monkeypatch):
    monkeypatch.setenv("EM_BENCH_PRETEND_GPUS", "4")
    work = tmp_path / "work"
    controller = subprocess.Popen(
        two_ranks(tmp_path, steps=150), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for(lambda: list(work.glob("runs/.*.partial/train.jsonl")), 120)
    os.killpg(controller.pid, signal.SIGKILL)
    controller.wait()
    wait_for(lambda: not processes(work), 20)


def test_help_names_the_options():
    from typer.testing import CliRunner

    told = CliRunner().invoke(build(), ["reproduce", "--help"], env={"COLUMNS": "200"}).stdout
    assert "--gpus" in told and "--profile" in told and "--only" in told
