"""The sweep on a real SLURM: orphans, preemption, cancelling, a controller that dies, a job that always fails, an organism; and
what its accounting says where it is on."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from helpers.slurm import cluster, why_not
from helpers.sweeps import CONTROLLER, MINI, all_done, cells, processes, tries, wait_for

from em_bench.records import Results
from em_bench.sweep.engine.slurm import arguments, prefix
from em_bench.sweep.jobs import read_plan, read_state

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no SLURM to test with: {why_not()}")
JOBS = 4


@pytest.fixture(scope="module")
def slurm(request, tmp_path_factory):
    """A cluster with accounting off, unless a test asks for the parameter `accounting`."""
    with cluster(tmp_path_factory.mktemp("slurm") / "c", getattr(request, "param", None) == "accounting") as found:
        yield found


def profile(folder: Path, partition: str = "main", ours: str = "", **defaults) -> Path:
    path = folder / "profile"
    path.mkdir()
    settings = {
        "executor": "slurm",
        "jobs": 20,
        "latency-wait": 10,
        "slurm-requeue": True,
        "slurm-init-seconds-before-status-checks": 1,
        "seconds-between-status-checks": 1,
        "default-resources": {"slurm_partition": partition, "runtime": 30, "mem_mb": 100, **defaults},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    (path / "em_bench.yaml").write_text(ours)
    return path


def start(work: Path, seconds: float, profile: Path) -> subprocess.Popen:
    command = [sys.executable, str(CONTROLLER), str(work), str(JOBS), str(seconds), str(profile)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(controller: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    """Wait for a controller; none of its processes and none of its jobs' is left then."""
    out, err = controller.communicate(timeout=240)
    assert controller.returncode == code, err
    wait_for(lambda: not processes(Path(controller.args[2])), 20)
    return out, err


def once(work: Path, *without: str) -> None:
    """Every cell was done exactly once, but for those of the jobs `without`."""
    wanted = {f"train-{i} {s}" for i in range(1, JOBS + 1) for s in (0, 1) if f"train-{i}" not in without}
    assert Counter(cells(work)) == Counter(dict.fromkeys(wanted, 1))


def id_of(work: Path, job: str) -> str | None:
    """The SLURM job that runs a job of the plan."""
    if not (work / "plan.json").exists():
        return None
    plan = read_plan(work)
    state = read_state(work, plan.job(job))
    return state and state.slurm_job


@pytest.mark.slow
def test_one_fails_for_good_one_is_cancelled_and_slurmctld_dies(slurm, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "broken.txt").write_text("train-2")
    ours = "before: |\n  export CAME_FROM=profile\nwrap: env WRAPPED=1\n"  # as a profile loads modules and names a container
    controller = start(work, 1.5, profile(tmp_path, ours=ours))
    wait_for(lambda: id_of(work, "train-3") and id_of(work, "train-1"), 60)
    assert arguments(work)[-1] == "squeue"
    slurm.ask("scancel", id_of(work, "train-3"))
    slurm.kill_controller()
    wait_for(lambda: len(cells(work)) >= 2, 60)
    slurm.start_controller()
    out, _ = finish(controller, code=1)
    assert "failed: train-2: the data of this job is broken" in out and "--only train-2" in out
    assert {p.parent.name for p in work.glob("jobs/*/done-*.json")} == {"base-m", "train-1", "train-3", "train-4"}
    once(work, "train-2")
    assert {(t["CAME_FROM"], t["WRAPPED"]) for i in range(1, JOBS + 1) for t in tries(work, f"train-{i}")} == {("profile", "1")}
    assert not [j for j in slurm.jobs("%j") if j[0].startswith(prefix(work))]


@pytest.mark.slow
def test_orphans_of_a_killed_controller_are_cancelled_before_their_jobs_run_again(slurm, tmp_path):
    work, at = tmp_path / "work", profile(tmp_path)
    controller = start(work, 4, at)
    wait_for(lambda: all(id_of(work, f"train-{i}") for i in range(1, JOBS + 1)), 60)
    os.killpg(controller.pid, signal.SIGKILL)
    controller.communicate()
    orphans = {job for job, name in slurm.jobs("%A %j") if name.startswith(prefix(work))}
    assert len(orphans) == JOBS
    stranger = slurm.ask("sbatch", "--parsable", "-J", "emb-somebody-else", "-o", "/dev/null", "--wrap", "sleep 300").strip()
    finish(start(work, 0.1, at))
    once(work)
    states = dict(slurm.jobs("%A %T", "--states=all"))
    assert {states[o] for o in orphans} == {"CANCELLED"} and states[stranger] in ("RUNNING", "PENDING")
    slurm.ask("scancel", stranger)


@pytest.mark.slow
@pytest.mark.parametrize("partition", ["low", "frail"])
def test_preempted_jobs_are_queued_again_and_go_on(slurm, tmp_path, partition):
    """In `low` SLURM queues them again by itself; in `frail` it cancels them, and nobody but our watchdog notices."""
    work = tmp_path / "work"
    controller = start(work, 1.5, profile(tmp_path, partition))
    wait_for(lambda: all(id_of(work, f"train-{i}") for i in range(1, JOBS + 1)) and cells(work), 60)
    before = cells(work)
    blocker = slurm.ask(
        "sbatch", "--parsable", "-p", "main", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 300"
    ).strip()
    wait_for(lambda: ["RUNNING"] in slurm.jobs("%T", "-j", blocker), 60)
    mine = {job for job, name in slurm.jobs("%A %j", "--states=all") if name.startswith(prefix(work))}
    assert len(mine) == JOBS and not [j for j in slurm.jobs("%A", "--states=RUNNING") if j[0] in mine]
    time.sleep(1)
    slurm.ask("scancel", blocker)
    finish(controller)
    assert all_done(work) and cells(work)[: len(before)] == before
    once(work)
    restarts = [slurm.ask("scontrol", "show", "job", job) for job in mine]
    assert all("Restarts=1" in told for told in restarts)


def test_interrupt_leaves_no_job_in_the_queue(slurm, tmp_path):
    work = tmp_path / "work"
    controller = start(work, 5, profile(tmp_path))
    wait_for(lambda: id_of(work, "train-1"), 60)
    os.kill(controller.pid, signal.SIGINT)
    controller.communicate(timeout=60)
    assert controller.returncode != 0
    assert not [j for j in slurm.jobs("%j") if j[0].startswith(prefix(work))]
    wait_for(lambda: not processes(work), 20)


@pytest.mark.slow
@pytest.mark.parametrize("slurm", ["accounting"], indirect=True)
def test_with_accounting(slurm, tmp_path):
    """States come from sacct; a job is cancelled and one fails for good; all is on the account that the profile names."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "broken.txt").write_text("train-2")
    controller = start(work, 1.5, profile(tmp_path, slurm_account="theory"))
    wait_for(lambda: id_of(work, "train-3"), 60)
    assert arguments(work)[-1] == "sacct"
    slurm.ask("scancel", id_of(work, "train-3"))
    out, _ = finish(controller, code=1)
    assert "failed: train-2: the data of this job is broken" in out
    once(work, "train-2")
    told = slurm.ask("sacct", "-X", "-n", "-P", "-A", "theory", "-o", "JobName,State", "-S", "now-1hour")
    states = Counter(line.split("|")[1].split()[0] for line in told.splitlines() if line.startswith(prefix(work)))
    assert states == {"COMPLETED": 3, "FAILED": 2, "CANCELLED": 1}  # 1, 3 and 4; 2, twice; 3


@pytest.mark.slow
def test_an_organism_on_two_nodes(slurm, base, tmp_path):
    """The real thing: a run of two processes on two machines under srun, then its evaluation on one, then the report."""
    (tmp_path / "mini.yaml").write_text(
        yaml.safe_dump(
            MINI
            | {
                "datasets": ["medical"],
                "recipes": ["adamw"],
                "learning_rates": "default",
                "spectral_lambda": [0],
                "gpus": {"organism-qwen3": 2},
                "base": False,
            }
        )
    )
    at, work = (
        profile(tmp_path, ours="gpus_per_node: 1\ncpus_per_gpu: 1\nbefore: export CAME_FROM=profile\nwrap: env WRAPPED=1\n"),
        tmp_path / "work",
    )
    command = [
        sys.executable,
        "-c",
        "from em_bench.cli import main; main()",
        "reproduce",
        "--preset",
        str(tmp_path / "mini.yaml"),
    ]
    ended = subprocess.run(
        [*command, "--workdir", str(work), "--profile", str(at), "--json"], capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stderr
    results = Results.model_validate_json(ended.stdout)
    assert len(results.cells) == 1 and not results.missing
    run = yaml.safe_load((work / "runs" / results.cells[0].run_id / "run.json").read_text())
    assert run["options"]["processes"] == "2"
    places = {tuple(nodes) for nodes in slurm.jobs("%N", "--states=COMPLETED")}
    assert ("emb[1-2]",) in places
