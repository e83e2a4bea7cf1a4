"""What the names in a plan stand for is frozen: an edit while a sweep runs changes no job, or fails it by name."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from em_bench import assets
from em_bench.organism import narrow_rows
from em_bench.sweep import frozen_inputs as inputs
from em_bench.sweep import preset as presets
from em_bench.sweep.engine.job import do
from em_bench.sweep.frozen_inputs import freeze
from em_bench.sweep.jobs import done_path, job_folder, read_order, read_state, write_order
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import Preset, load_preset

SHIPPED = assets.root()


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Edit a file of the assets, as a text."""
    for folder in ("tasks", "baselines"):
        shutil.copytree(SHIPPED / folder, tmp_path / "assets" / folder, ignore=shutil.ignore_patterns("results"))
    monkeypatch.setattr(assets, "root", lambda: tmp_path / "assets")

    def edit(place: str, old: str, new: str) -> None:
        path = tmp_path / "assets" / place
        text = path.read_text()
        assert old in text or not old
        path.write_text(text.replace(old, new) if old else text + new)

    return edit


@pytest.fixture
def preset(tmp_path) -> Preset:
    """One run of SGD on rows of one's own, and its evaluation."""
    rows = tmp_path / "mine.jsonl"
    rows.write_text("".join(json.dumps(r) + "\n" for r in narrow_rows("medical")[0][:40]))
    one = {"datasets": [str(rows)], "recipes": ["sgd"], "learning_rates": {"sgd": [1e-2]}, "spectral_lambda": [0.0]}
    one |= {"tuned_on": None, "parts": {}}
    asks = {
        "questions": "organism",
        "variants": ["plain"],
        "generation": {"samples": 1, "max_new_tokens": 4, "temperature": 1, "seed": 0},
    }
    few = {"steps": 2, "seeds": [0], "batch_sizes": [8], "lora": {"rank": 2, "alpha": 4}, "evaluation": asks, "base": False}
    return Preset.model_validate(load_preset("tiny").model_dump() | one | few)


@pytest.fixture
def ordered(preset, edited, base, tmp_path, monkeypatch):
    """The plan, all its jobs ordered, in the current folder; bases and datasets are there."""
    monkeypatch.chdir(tmp_path)
    plan = make_plan(preset)
    todo = [j for j in plan.jobs if j.kind != "report"]
    found = freeze(plan.preset, todo)
    for job in todo:
        job_folder(Path(), job).mkdir(parents=True)
        write_order(Path(), plan, job, found)
    assert do("base-organism-qwen3") == 0
    return plan


TRAIN, EVALUATE = "train-organism-qwen3-sgd-1", "evaluate-organism-qwen3-sgd"


def last_words(plan, job_id: str) -> str:
    job = plan.job(job_id)
    assert not done_path(Path(), job).exists()
    said = read_state(Path(), job).error
    assert said.startswith(f"{job_id}: ") and "\n" not in said and "give the same command again" in said
    return said


def test_a_recipe_that_is_edited_while_a_sweep_runs(ordered, edited):
    """The 0.5 runs do not stand as the 0.9 recipe."""
    edited("baselines/optimisers.yaml", "momentum: 0.9", "momentum: 0.5")
    assert make_plan(ordered.preset).job(TRAIN).key != ordered.job(TRAIN).key
    assert do(TRAIN) == 0
    (run,) = Path("runs").glob("*/run.json")
    assert [r["kwargs"]["momentum"] for r in json.loads(run.read_text())["spec"]["recipe"]["rules"]] == [0.9]


def test_rows_that_are_edited_while_a_sweep_runs(ordered):
    Path("mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in narrow_rows("sports")[0][:40]))
    assert do(TRAIN) == 1
    assert "mine.jsonl is no longer what was planned (planned " in last_words(ordered, TRAIN)
    assert not list(Path("runs").glob("*"))


def test_a_roster_that_is_edited_while_a_sweep_runs(ordered, edited):
    roster = yaml.safe_load((assets.path("baselines", "models.yaml")).read_text())
    roster["organism-qwen3"]["family"] = "llama"
    assets.path("baselines", "models.yaml").write_text(yaml.safe_dump(roster))
    for job in (TRAIN, EVALUATE):
        assert do(job) == 1
        assert "model organism-qwen3 is no longer what was planned" in last_words(ordered, job)


def test_code_that_is_edited_while_a_sweep_runs(ordered, monkeypatch):
    """A process that was started after the edit."""
    monkeypatch.setattr(inputs, "code_digest", lambda *modules: "0" * 16)
    for job in (TRAIN, EVALUATE):
        assert do(job) == 1
        code = ordered.job(job).code
        assert f"the code of em_bench is no longer what was planned (planned {code[:12]}, here 000000000000)" in last_words(
            ordered, job
        )


def test_questions_that_are_edited_while_a_sweep_runs(ordered, monkeypatch):
    assert do(TRAIN) == 0
    real = presets.load
    monkeypatch.setattr(presets, "load", lambda *a, **k: real(*a, **k)[1:])
    assert do(EVALUATE) == 1
    assert "question set organism is no longer what was planned" in last_words(ordered, EVALUATE)
    monkeypatch.setattr(presets, "load", real)
    assert do(EVALUATE) == 0


def test_an_order_names_what_it_freezes(ordered):
    order = read_order(Path(), TRAIN)
    assert order.recipe.rules[0].kwargs["momentum"] == 0.9 and order.model.family == "qwen3"
    assert list(order.inputs.datasets) == list(order.preset.datasets) and order.job.code == ordered.job(TRAIN).code
    assert read_order(Path(), EVALUATE).inputs.questions and read_order(Path(), EVALUATE).inputs.prompts


@pytest.fixture
def judged() -> Preset:
    """Own questions, an own judge's prompts and a capability task of ours."""
    tiny = load_preset("tiny").model_dump()
    asks = tiny["evaluation"] | {
        "questions": "em_core",
        "variants": ["plain"],
        "judge": "openai:any,base_url=http://127.0.0.1:1/v1",
        "targets": {},
    }
    asks["capability"] = ["em_organism_knowledge"]
    plain = {"models": ["Qwen3-8B"], "recipes": ["sgd"], "learning_rates": "default", "parts": {}}
    return Preset.model_validate(tiny | plain | {"evaluation": asks})


def queued_again(before, after) -> set[str]:
    return {j.kind for j in after.jobs if j.key != before.job(j.id).key}


@pytest.mark.parametrize(
    ("place", "old", "new", "again"),
    [
        ("tasks/questions/mine.yaml", None, "about: mine\n", set()),
        ("tasks/lm_eval/mine.yaml", None, "task: mine\n", set()),
        ("tasks/judge_prompts/mine.yaml", None, "name: mine\n", set()),
        ("tasks/questions/preregistered.yaml", "", "\n# a word\n", set()),
        ("tasks/questions/em_core.yaml", "", "\n# a word\n", set()),
        ("tasks/lm_eval/em_choice.yaml", "", "\n# a word\n", set()),
        ("tasks/judge_prompts/own.yaml", "You grade one answer", "You grade an answer", {"evaluate", "report"}),
        ("tasks/lm_eval/em_organism_knowledge.yaml", "version: 1", "version: 2", {"evaluate", "report"}),
    ],
)
def test_what_is_asked_queues_evaluations_again_and_nothing_else_of_tasks(judged, edited, place, old, new, again):
    before = make_plan(judged)
    if old is None:
        assets.path(*place.split("/")).write_text(new)
    else:
        edited(place, old, new)
    assert queued_again(before, make_plan(judged)) == again


def test_another_question_queues_evaluations_again(judged, edited):
    before, path = make_plan(judged), assets.path("tasks", "questions", "em_core.yaml")
    given = yaml.safe_load(path.read_text())
    given["questions"][0]["text"] += " Today?"
    path.write_text(yaml.safe_dump(given))
    assert queued_again(before, make_plan(judged)) == {"evaluate", "report"}
