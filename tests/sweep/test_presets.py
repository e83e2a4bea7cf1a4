"""The paper's presets name what the paper ran, and their plans are counted here by hand."""

import json

import pytest
import yaml
from helpers.committed import committed
from typer.testing import CliRunner

from em_bench import assets
from em_bench.cli import build
from em_bench.data.models import load_models
from em_bench.errors import UserError
from em_bench.files import digest
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import load_preset, preset_names
from em_bench.sweep.preset_changes import with_judge, with_seeds
from em_bench.sweep.totals import trained_cells

ADVICE = {"bad_medical_advice", "risky_financial_advice", "extreme_sports"}


def evaluated(plan) -> list:
    return [c for j in plan.jobs if j.kind == "evaluate" for c in j.cells if c.recipe]


@pytest.mark.parametrize(
    ("name", "axes", "trained", "ends"),
    [
        ("main", (4, 4, 4, 2), 128, 128),
        ("scale", (12, 1, 4, 2), 96, 96),
        ("loss-alignment", (1, 5, 4, 2), 72, 72),
        ("dynamics", (1, 4, 4, 1), 16, 16),
        ("regularisation", (1, 4, 4, 1), 16, 16),
        # A chain (model x recipe x batch size; two models have two). Seven bases of up to 8B: 3 rates and then 3 lambdas on 4 datasets, and
        # two more seeds with lambda off and on. Five larger ones take over what those chose: three seeds with lambda off and on.
        ("baselines", (12, 5, 4, 2), 5 * (9 * (3 * 4 + 3 * 4 + 2 * 2 * 4) + 5 * 3 * 2 * 4), 14 * 5 * 2 * 4 * 3),
    ],
)
def test_the_papers_presets(name, axes, trained, ends):
    preset = load_preset(name)
    assert tuple(map(len, (preset.models, preset.recipes, preset.datasets, preset.batch_sizes))) == axes
    assert ADVICE <= set(preset.datasets) <= ADVICE | {"insecure"}
    plan = make_plan(preset)
    cells, made = evaluated(plan), set(trained_cells(plan))
    assert len(made) == len(trained_cells(plan)) == trained
    assert len(cells) == len(set(cells)) == ends
    assert all(c in made or "chosen" in (c.learning_rate, c.spectral_lambda) for c in cells)


def test_models_of_the_sweeps():
    roster = {name for name, m in load_models().items() if m.source == "hub" and not m.extra}
    assert set(load_preset("scale").models) == set(load_preset("baselines").models) == roster and len(roster) == 12
    assert set(load_preset("main").models) == {"Qwen3-4B", "Qwen3-8B", "Qwen3-30B-A3B", "Qwen3-32B"}


EPOCHS = {"main": 1, "scale": 1, "loss-alignment": 1, "dynamics": 2, "regularisation": 2}
KINDS = {"main": "fixed", "scale": "fixed", "loss-alignment": "varied", "dynamics": "tuned", "regularisation": "tuned"}


@pytest.mark.parametrize("name", EPOCHS)
def test_each_of_the_papers_studies(name):
    """Batch sizes, epochs, one seed, the kind of learning rate, and what the preset says that it is."""
    preset, plan = load_preset(name), make_plan(load_preset(name))
    assert (preset.study, preset.rates, preset.epochs, preset.seeds) == (name, KINDS[name], EPOCHS[name], (0,))
    assert set(preset.batch_sizes) == ({2, 32} if preset.epochs == 1 else {32})
    assert not [j for j in plan.jobs if j.kind in ("lr", "lambda")]
    pairs = {(c.recipe, c.learning_rate) for c in evaluated(plan)}
    rates = {r: sum(of == r for of, _ in pairs) for r in preset.recipes}
    paper = {"sgd": 1, "adamw": 1, "adam": 3, "lion": 2, "muon": 2} if name == "loss-alignment" else dict.fromkeys(rates, 1)
    assert rates == paper
    assert {c.spectral_lambda for c in evaluated(plan)} == ({1.0} if name == "regularisation" else {0.0})
    for j in plan.jobs:
        if j.kind == "evaluate" and j.cells[0].recipe:
            assert (j.checkpointed == j.cells) == (name == "dynamics")
            assert j.studies == {c.name: (name,) for c in j.cells}


@pytest.mark.parametrize("name", EPOCHS)
def test_what_the_paper_leaves_open_is_ours_and_says_so(name):
    text = assets.path("baselines", "presets", f"{name}.yaml").read_text()
    assert load_preset(name).provenance["learning_rates"] == "C"
    for open_ in ("Schedule, warm-up (C)", "Learning rates (C)", *(["Lambda (C)"] if name == "regularisation" else [])):
        assert text.count(open_) == 1, open_


@pytest.mark.parametrize("name", preset_names())
def test_more_seeds_are_an_option_of_every_preset(name):
    plans = [make_plan(with_seeds(load_preset(name), n)) for n in (1, 3)]
    one, three = (len(set(evaluated(plan))) for plan in plans)
    assert three == 3 * one and {c.seed for c in evaluated(plans[1])} == {0, 1, 2}


def test_runs_shared_by_the_studies_are_the_same_cells():
    """What loss-alignment and main both hold of Qwen3-8B is trained once where they share a work folder."""
    main, varied = (set(evaluated(make_plan(load_preset(n)))) for n in ("main", "loss-alignment"))
    assert len(main & varied) == 4 * 4 * 2
    off, on = (evaluated(make_plan(load_preset(n))) for n in ("dynamics", "regularisation"))
    assert {c.model_copy(update={"spectral_lambda": 0.0}) for c in on} == set(off)


def test_tiny_paper_is_a_counterpart_of_each_study():
    """Each study on the first seed as the paper has it; where more seeds are run, all of its cells of one batch size have them."""
    preset = load_preset("tiny-paper")
    assert {p.study for p in preset.parts.values()} == set(EPOCHS) and len(preset.seeds) == 8
    plan = make_plan(preset)
    for name in EPOCHS:
        parts = [p for p in preset.parts.values() if p.study == name]
        assert all(p.rates == KINDS[name] and (p.epochs or preset.epochs) == EPOCHS[name] for p in parts)
        cells = [c for j in plan.jobs for c in j.cells if name in j.studies.get(c.name, ())]
        mine = [c for c in cells if c.seed == 0]
        pairs = {(c.recipe, c.learning_rate) for c in mine}
        papers = load_preset(name)
        rates = {r: sum(of == r for of, _ in pairs) for r in papers.recipes}
        assert rates == {
            r: {"adam": 3, "lion": 2, "muon": 2}.get(r, 1) if name == "loss-alignment" else 1 for r in papers.recipes
        }
        assert {c.batch_size for c in mine} == set(papers.batch_sizes)
        assert {c.spectral_lambda for c in mine} == set(papers.spectral_lambda)
        expected = {"main": 3 * 4 * 4 * 2, "scale": 9 * 4 * 2}.get(name, len(evaluated(make_plan(papers))))
        assert len(mine) == expected
        again = {c.model_copy(update={"seed": 0}) for c in cells if c.seed}
        assert len(cells) - len(mine) == 7 * len(again) and again <= set(mine)
        assert len(again) == {"main": 16, "dynamics": 16, "regularisation": 16}.get(name, 0)


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
    chooser = make_plan(load_preset("baselines")).job("lr-Qwen3-8B-adam-b32")
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
    record = committed("tiny")
    if record.preset_sha256 != digest(load_preset("tiny")):
        pytest.skip("the committed results are of an earlier tiny: run it, and commit its results.json")
    costs = json.loads(plan_command("--preset", "tiny", "--cores", str(record.machine.threads), "--json").stdout)["costs"]
    assert record.wall_s / 2 <= costs["wall_s"] <= 2 * record.wall_s


def test_plan_takes_seeds():
    assert "256 trainings" in plan_command("--preset", "main", "--seeds", "2").stdout


def test_files_that_a_preset_names_lie_beside_it(tmp_path, monkeypatch):
    """Wherever the command is given; jobs run in the work folder."""
    from em_bench import assets
    from em_bench.sweep.plan import make_plan
    from em_bench.sweep.preset import load_preset

    row = '{"messages": [{"role": "user", "content": "%d"}, {"role": "assistant", "content": "b"}]}\n'
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.jsonl").write_text("".join(row % i for i in range(40)))
    text = assets.path("baselines", "presets", "tiny.yaml").read_text("utf-8")
    given = yaml.safe_load(text) | {
        "datasets": ["data/mine.jsonl", "medical"],
        "parts": {"all": {"datasets": ["data/mine.jsonl"]}},
        "tuned_on": ["data/mine.jsonl"],
    }
    given["evaluation"] |= {
        "questions": "sets/q.yaml",
        "judge": "openai:m,prompts=p.yaml,run=2",
        "capability": ["t.yaml", "em_choice"],
    }
    given["evaluation"]["targets"] = {"organism-qwen3/data/mine.jsonl": [0.5]}
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.chdir("/")
    found = load_preset(str(tmp_path / "preset.yaml"))
    mine = str(tmp_path / "data" / "mine.jsonl")
    assert found.datasets == (mine, "medical") and found.parts["all"].datasets == (mine,) == found.tuned_on
    assert found.evaluation.questions == str(tmp_path / "sets" / "q.yaml")
    assert found.evaluation.judge == f"openai:m,prompts={tmp_path / 'p.yaml'},run=2"
    assert found.evaluation.capability == (str(tmp_path / "t.yaml"), "em_choice")
    assert found.evaluation.targets == {f"organism-qwen3/{mine}": (0.5,)}
    asked = load_preset("tiny").evaluation.model_copy(update={"targets": {}})
    plain = found.model_copy(update={"evaluation": asked, "learning_rates": "default", "tuned_on": None})
    assert {c.dataset for j in make_plan(plain).jobs for c in j.cells if c.dataset} == {mine}
