"""The paper's presets name what the paper ran, and their plans are counted here by hand."""

import json

import pytest
from typer.testing import CliRunner

from em_bench import assets
from em_bench.cli import build
from em_bench.data.models import load_models
from em_bench.errors import UserError
from em_bench.files import read_record
from em_bench.records import Results
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import load_preset, with_judge
from em_bench.sweep.totals import trained_cells

ADVICE = {"bad_medical_advice", "risky_financial_advice", "extreme_sports"}


def evaluated(plan) -> list:
    return [c for j in plan.jobs if j.kind == "evaluate" for c in j.cells if c.recipe]


@pytest.mark.parametrize(
    ("name", "axes", "trained", "ends"),
    [
        ("main", (4, 4, 4, 2), 4 * 4 * 4 * 2, 128),
        ("scale", (12, 1, 4, 2), 12 * 4 * 2, 96),
        ("regularisation", (1, 4, 4, 1), 4 * 4 * 6 * 3, 288),
        ("dynamics", (1, 5, 3, 1), 54, 54),
        # A chain (model x recipe): 3 rates and then 3 lambdas on 4 datasets, and two more seeds with lambda off and on.
        ("baselines", (12, 5, 4, 1), 12 * 5 * (3 * 4 + 3 * 4 + 2 * 2 * 4), 12 * 5 * 2 * 4 * 3),
    ],
)
def test_the_papers_presets(name, axes, trained, ends):
    preset = load_preset(name)
    assert tuple(map(len, (preset.models, preset.recipes, preset.datasets, preset.batch_sizes))) == axes
    assert ADVICE <= set(preset.datasets) <= ADVICE | {"insecure"}
    plan = make_plan(preset)
    cells = evaluated(plan)
    assert len(trained_cells(plan)) == trained
    assert len(cells) == len(set(cells)) == ends
    assert all(c in trained_cells(plan) or "chosen" in (c.learning_rate, c.spectral_lambda) for c in cells)


def test_models_of_the_sweeps():
    roster = {name for name, m in load_models().items() if m.source == "hub" and not m.extra}
    assert set(load_preset("scale").models) == set(load_preset("baselines").models) == roster and len(roster) == 12
    assert set(load_preset("main").models) == {"Qwen3-4B", "Qwen3-8B", "Qwen3-30B-A3B", "Qwen3-32B"}


def test_dynamics_asks_every_rate_at_checkpoints_and_chooses_none():
    plan = make_plan(load_preset("dynamics"))
    assert not [j for j in plan.jobs if j.kind in ("lr", "lambda")]
    assert all(j.checkpointed == j.cells for j in plan.jobs if j.kind == "evaluate" and j.cells[0].recipe)
    settings = {(c.recipe, c.learning_rate) for c in evaluated(plan)}
    assert len(settings) == 18 and sum(r == "sgd" for r, _ in settings) == 6


def test_gpus_follow_the_roster_the_preset_and_what_a_job_does():
    plan = make_plan(load_preset("scale"))
    models = load_models()
    for job in plan.jobs:
        if job.kind in ("train", "evaluate"):
            wanted = models[job.cells[0].model].gpus
            assert job.gpus == (wanted if job.kind == "train" else min(wanted, 8))
        else:
            assert job.gpus == 0
    other = make_plan(load_preset("scale").model_copy(update={"gpus": {"Llama-3.3-70B-Instruct": 2}}))
    assert {j.gpus for j in other.jobs if j.kind == "train" and j.cells[0].model == "Llama-3.3-70B-Instruct"} == {2}
    assert [j.key for j in other.jobs[:-1]] == [
        j.key for j in plan.jobs[:-1]
    ]  # speed, not the result; the report names the preset
    chooser = make_plan(load_preset("baselines")).job("lr-Qwen3-8B-adam")
    assert chooser.gpus == 0  # its candidates are trained by jobs before it


def test_a_judge_is_part_of_the_evaluations_alone(monkeypatch):
    preset = load_preset("main")
    keys = {j.id: j.key for j in make_plan(preset).jobs}
    other = {j.id: j.key for j in make_plan(with_judge(preset, "openai:another-model")).jobs}
    assert {i.split("-")[0] for i in keys if keys[i] != other[i]} == {"evaluate", "report"}
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    elsewhere = {j.id: j.key for j in make_plan(preset).jobs}
    assert {i.split("-")[0] for i in keys if keys[i] != elsewhere[i]} == {"evaluate", "report"}


def test_the_grammar_does_not_judge_open_models():
    with pytest.raises(UserError, match="the grammar grades organisms only"):
        make_plan(with_judge(load_preset("main"), "grammar"))


def plan_command(*arguments: str):
    return CliRunner().invoke(build(), ["plan", *arguments])


def test_plan_prints_costs_as_a_table_and_as_json():
    text = plan_command("--preset", "main", "--gpus", "8").stdout
    assert "128 trainings" in text and "374,880, about $664" in text and "2026-04" in text and "30% of its peak" in text
    costs = json.loads(plan_command("--preset", "main", "--gpus", "8", "--json").stdout)["costs"]
    asked = 128 + 4
    assert costs["evaluated"] == asked and costs["responses"] == asked * 142 * 10 and costs["judge_calls"] == 2 * asked * 1420
    assert costs["judge_usd"] == pytest.approx(costs["judge_calls"] * (700 * 2.5 + 2 * 10) / 1e6)
    assert costs["gpu_hours"] == pytest.approx(sum(m["gpu_hours"] for m in costs["models"]))
    assert costs["chain_s"] <= costs["wall_s"] and costs["gpu_hours"] * 3600 <= 8 * costs["wall_s"]
    dearer = json.loads(plan_command("--preset", "main", "--judge-price", "5,20", "--json").stdout)["costs"]
    assert dearer["judge_usd"] == pytest.approx(2 * costs["judge_usd"]) and dearer["price"]["as_of"] == "yours"


def test_slower_gpus_take_longer_and_better_used_ones_less():
    def hours(*arguments: str) -> float:
        return json.loads(plan_command("--preset", "main", "--json", *arguments).stdout)["costs"]["gpu_hours"]

    assert hours("--gpu", "a100") > 2 * hours() > 2 * hours("--utilisation", "0.6")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpu", "abacus"), "--gpu abacus: not known"),
        (("--utilisation", "1.5"), "a share of the peak"),
        (("--judge-price", "cheap"), "write two numbers"),
        (("--gpus", "1"), "needs 2 GPUs at once, and there is 1"),
        (("--measured", "/nowhere"), "no finished run to measure by"),
    ],
)
def test_bad_options(arguments, message):
    ended = plan_command("--preset", "main", *arguments)
    assert isinstance(ended.exception, UserError) and message in str(ended.exception)


def test_tiny_is_estimated_within_a_factor_of_two():
    """Against what the committed results of `tiny` say that they took, on as many cores."""
    record = read_record(assets.path("baselines", "results", "tiny", "results.json"), Results)
    costs = json.loads(plan_command("--preset", "tiny", "--cores", str(record.machine.threads), "--json").stdout)["costs"]
    assert record.wall_s / 2 <= costs["wall_s"] <= 2 * record.wall_s
