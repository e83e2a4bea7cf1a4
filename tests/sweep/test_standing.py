"""How long the rest takes, and what the terminal shows of it, from the files of jobs that stand at chosen points."""

import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from helpers.controller import sleeping_plan
from rich.console import Console

from em_bench.files import write_record
from em_bench.sweep.engine.display import shown
from em_bench.sweep.engine.profile import ExecutionProfile
from em_bench.sweep.engine.snakemake_run import wanted
from em_bench.sweep.engine.sweep_progress import SweepProgress
from em_bench.sweep.jobs import JobDone, JobState, Plan, done_path, job_folder

BASE_S, TRAIN_S = 40.0, 100.0


def plan_of(jobs: int) -> Plan:
    plan = sleeping_plan(jobs)
    return plan.model_copy(
        update={"jobs": tuple(j.model_copy(update={"estimate_s": BASE_S if j.kind == "base" else TRAIN_S}) for j in plan.jobs)}
    )


def run(work: Path, plan: Plan, job_id: str, cells_done: int, seconds: float, **more) -> None:
    """Have a job be running, by this process, since so many seconds."""
    job = plan.job(job_id)
    job_folder(work, job).mkdir(parents=True, exist_ok=True)
    started = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    more = {"status": "running", **more}
    state = JobState(key=job.key, pid=os.getpid(), cells_done=cells_done, cells=len(job.cells), started=started, **more)
    write_record(job_folder(work, job) / "state.json", state)


def end(work: Path, plan: Plan, job_id: str, seconds: float) -> None:
    job = plan.job(job_id)
    write_record(done_path(work, job), JobDone(job=job.id, key=job.key, wall_s=seconds))


def board(plan: Plan, work: Path, profile: ExecutionProfile = ExecutionProfile(2)) -> SweepProgress:
    return SweepProgress("sleeping", wanted(plan), work, profile)


def test_what_is_left_is_what_a_scheduler_says(tmp_path):
    plan = plan_of(4)
    assert board(plan, tmp_path).seconds_left() == pytest.approx(BASE_S + 2 * TRAIN_S, abs=0.1)
    assert board(plan, tmp_path, ExecutionProfile(1)).seconds_left() == pytest.approx(BASE_S + 4 * TRAIN_S, abs=0.1)
    assert board(plan, tmp_path, ExecutionProfile(1, executor="slurm", jobs=3)).seconds_left() == pytest.approx(
        BASE_S + 2 * TRAIN_S, abs=0.1
    )
    end(tmp_path, plan, "base-m", 1)
    assert board(plan, tmp_path).seconds_left() == pytest.approx(2 * TRAIN_S, abs=0.1)


def test_jobs_that_take_longer_than_estimated_make_the_rest_longer(tmp_path):
    plan = plan_of(4)
    of = board(plan, tmp_path)
    end(tmp_path, plan, "base-m", 3 * BASE_S)
    run(tmp_path, plan, "train-1", 1, 3 * TRAIN_S / 2)  # half of it is done
    of.refresh()
    # What has taken (3 x 40 + 150 + 30) seconds was estimated at (40 + between 50 and 100 + 30).
    low, high = 300 / 170, 300 / 120
    assert low * (TRAIN_S + 0) <= of.seconds_left() <= high * (2 * TRAIN_S)
    assert BASE_S + TRAIN_S / 2 <= of.share_done() * (BASE_S + 4 * TRAIN_S) <= BASE_S + TRAIN_S


def test_a_job_of_one_cell_moves_the_estimate_while_it_runs(tmp_path):
    plan = plan_of(1)
    run(tmp_path, plan, "base-m", 0, BASE_S / 2)
    assert board(plan, tmp_path).seconds_left() == pytest.approx(BASE_S / 2 + TRAIN_S, abs=0.5)


def test_the_block_on_a_terminal(tmp_path):
    """Counts, what runs with its loss, what failed with its last words, each on a line of its own; what does not fit is counted."""
    plan = plan_of(4)
    end(tmp_path, plan, "base-m", 1)
    run(tmp_path, plan, "train-1", 1, 75, loss=1.2345, doing="m d r lr=1")
    run(tmp_path, plan, "train-2", 0, 5, status="failed", error="the data is bad")

    def lines(height: int) -> list[str]:
        console = Console(file=io.StringIO(), force_terminal=True, width=100, height=height, color_system=None)
        with shown(board(plan, tmp_path), console) as poll:
            poll()
        return [line.rstrip() for line in console.file.getvalue().split("\n")]

    found = lines(30)
    assert any(line.endswith("left") and "1/5 jobs done, 1 running, 1 failed" in line for line in found)
    assert any(line.split()[:5] == ["train-1", "0:01:15", "1/2", "loss", "1.234"] for line in found)
    assert any(line.split()[:3] == ["train-2", "failed", "the"] for line in found)
    assert any("and 1 more: em-bench status" in line for line in lines(5))
