"""What keeps a sweep's own work a job from growing with the number of jobs; benchmarks/sweep.py, which measures it, in small."""

import importlib.util
from pathlib import Path

import pytest

from em_bench.sweep.jobs import job_folder, read_order, write_order
from em_bench.sweep.plan import make_plan

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sweep.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_sweep", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_simulated_sweep_ends_complete(benchmark, tmp_path):
    found = benchmark.simulate(30, tmp_path / "work")  # ends with SystemExit where a job or a cell is missing
    assert found["jobs"] == 31 and all(found[phase] > 0 for phase in ("planning", "dispatch", "aggregation"))


def test_links_and_what_a_job_reads_do_not_grow_with_the_plan(benchmark, tmp_path):
    sizes = []
    for jobs in (100, 1000):
        plan = make_plan(benchmark.preset_of(jobs))
        evaluations = [j for j in plan.jobs if j.kind == "evaluate" and j.cells[0].recipe]
        assert len(evaluations) > jobs / 3 and {len(j.needs) for j in evaluations} == {2}  # the base and the cell's own training
        for job in evaluations:
            trained = [c for n in job.needs if plan.job(n).kind == "train" for c in plan.job(n).cells]
            assert set(job.cells) == set(trained)
        job_folder(tmp_path, evaluations[0]).mkdir(parents=True, exist_ok=True)
        write_order(tmp_path, plan, evaluations[0])
        assert read_order(tmp_path, evaluations[0].id).job == evaluations[0]
        order = (job_folder(tmp_path, evaluations[0]) / "job.json").read_text()
        sizes.append(len(order) - len(plan.preset.model_dump_json()))
    assert abs(sizes[0] - sizes[1]) <= 16  # digits of an estimate
