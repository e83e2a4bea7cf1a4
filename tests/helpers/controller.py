"""A controller over sleeping jobs, as a process of its own: controller.py WORK JOBS SECONDS-A-CELL [PROFILE]

$GPUS_A_JOB is how many pretended GPUs each training needs, on 8 cores; none are needed where it is not set.
"""

import os
import signal
import sys
from pathlib import Path

from em_bench.records import Generation
from em_bench.sweep.engine.controller_lock import controller_lock
from em_bench.sweep.engine.display import failures, shown
from em_bench.sweep.engine.gpu_lease import devices
from em_bench.sweep.engine.profile import ExecutionProfile, load_profile
from em_bench.sweep.engine.snakemake_run import run_plan, wanted
from em_bench.sweep.engine.sweep_progress import SweepProgress
from em_bench.sweep.jobs import Cell, Job, Plan
from em_bench.sweep.preset import AXES, Preset, PresetEvaluation
from em_bench.sweep.preset_training import Lora


def sleeping_plan(jobs: int, cells: int = 2, gpus: int = 0) -> Plan:
    """A base and `jobs` trainings that need it."""
    preset = Preset(
        name="sleeping",
        summary="jobs that sleep",
        models=("m",),
        datasets=("d",),
        recipes=("r",),
        learning_rates="default",
        spectral_lambda=(0.0,),
        batch_sizes=(1,),
        seeds=tuple(range(cells)),
        steps=1,
        lora=Lora(rank=1, alpha=1),
        evaluation=PresetEvaluation(questions="q", generation=Generation(samples=1, max_new_tokens=1, temperature=1)),
        base=False,
        pack=cells,
        provenance=dict.fromkeys((*AXES, "steps"), "C"),
    )
    pack = tuple(
        Cell(model="m", dataset="d", recipe="r", learning_rate=1, spectral_lambda=0, batch_size=1, seed=s) for s in range(cells)
    )
    base = Job(id="base-m", kind="base", key="0" * 16, code="0", estimate_s=1)
    trainings = [
        Job(id=f"train-{i}", kind="train", needs=("base-m",), cells=pack, key=f"{i:016x}", code="0", estimate_s=1, gpus=gpus)
        for i in range(1, jobs + 1)
    ]
    return Plan(preset=preset, preset_sha256="0" * 64, jobs=(base, *trainings))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in the background ignores it
    work, jobs, seconds = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    gpus = int(os.environ.get("GPUS_A_JOB", "0"))
    plan = sleeping_plan(jobs, gpus=gpus)
    command = (sys.executable, str(Path(__file__).with_name("sleeping_job.py")), seconds)
    at = load_profile(sys.argv[4]) if len(sys.argv) > 4 else ExecutionProfile(8, devices()) if gpus else ExecutionProfile(2)
    with controller_lock(work) as fd, shown(SweepProgress(plan.preset.name, wanted(plan), work, at)) as poll:
        left = run_plan(plan, work, fd, profile=at, on_poll=poll, job_command=command)
    print(failures(plan, work, left))
    sys.exit(1 if left else 0)
