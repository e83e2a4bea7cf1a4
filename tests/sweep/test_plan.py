"""Plans and presets: the jobs of tiny, what a key depends on, packs, and bad input."""

from collections import Counter

import pytest
import yaml

from em_bench.errors import UserError
from em_bench.optim import load_recipes
from em_bench.sweep import plan as planning
from em_bench.sweep.jobs import Job
from em_bench.sweep.makespan import makespan
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import Preset, load_preset, preset_names

RECIPES = list(load_preset("tiny").recipes)


def changed(preset: Preset, **fields) -> Preset:
    return Preset.model_validate({**preset.model_dump(), **fields})


DATASETS, CONTROL = ("medical", "finance", "sports", "code"), "-control"
GRIDS = {
    "datasets": DATASETS,
    "learning_rates": "grid",
    "spectral_lambda": {"grid": [0.3, 1, 3], "tolerance": 0.01},
    "seeds": [0],
}


@pytest.fixture(scope="module")
def tiny():
    """The main job's axes with grids to choose from, and no parts or targets."""
    shipped = load_preset("tiny")
    asked = shipped.evaluation.model_dump() | {"targets": {}, "rescaled": False}
    return changed(shipped, **GRIDS, tuned_on=None, parts={}, evaluation=asked)


def test_tiny_has_the_axes_of_the_main_job():
    """Shipped recipes, the term off and on, four datasets at two losses, good advice beside bad, the same seeds in every cell."""
    tiny = load_preset("tiny")
    bad = [d for d in tiny.datasets if not d.endswith(CONTROL)]
    assert set(tiny.recipes) <= set(load_recipes()) and sorted(bad) == sorted(DATASETS) and tiny.base and tiny.evaluation.rescaled
    plan = make_plan(tiny)
    cells = [c for j in plan.jobs if j.kind == "evaluate" for c in j.cells if c.recipe]
    assert Counter((c.recipe, c.spectral_lambda, c.dataset) for c in cells if c.dataset in bad) == {
        (r, v, d): len(tiny.seeds) for r in RECIPES for v in tiny.spectral_lambda for d in bad
    }
    assert {c.dataset for c in cells if c.dataset not in bad} == {d + CONTROL for d in bad} and len(tiny.spectral_lambda) == 2
    for model in tiny.models:
        assert all(
            len(tiny.evaluation.targets_of(model, d)) == 2 and not tiny.evaluation.targets_of(model, d + CONTROL) for d in bad
        )
    walks = [j for j in plan.jobs if j.kind == "lr"]
    assert len(walks) == len(RECIPES) and all({c.dataset for c in j.cells} == set(bad) for j in walks)


def test_jobs_of_grids(tiny):
    plan = make_plan(tiny)
    chains = {f"{kind}-organism-qwen3-{r}" for kind in ("lr", "lambda", "evaluate") for r in RECIPES}
    assert {j.id for j in plan.jobs} == chains | {"base-organism-qwen3", "evaluate-base-organism-qwen3", "report"}
    lr, lam, ev = (plan.job(f"{kind}-organism-qwen3-lion") for kind in ("lr", "lambda", "evaluate"))
    assert lr.needs == ("base-organism-qwen3",)
    assert lam.needs == (*lr.needs, lr.id)
    assert ev.needs == (*lam.needs, lam.id)
    assert {c.spectral_lambda for c in lr.cells} == {0.0} and {c.dataset for c in lr.cells} == set(tiny.datasets)
    assert {c.learning_rate for c in lr.cells} == set(load_recipes()["lion"].learning_rates["organism"].grid)
    assert {c.spectral_lambda for c in lam.cells} == {0.0, *tiny.spectral_lambda.grid}
    assert {(c.learning_rate, c.spectral_lambda) for c in ev.cells} == {("chosen", 0.0), ("chosen", "chosen")}
    assert set(plan.job("report").needs) == {j.id for j in plan.jobs if j.kind == "evaluate"}


def test_needs_come_before_the_needy_and_ids_and_keys_are_unique(tiny):
    seen: set[str] = set()
    plan = make_plan(tiny)
    for job in plan.jobs:
        assert set(job.needs) <= seen
        assert job.id.startswith(job.kind)
        seen.add(job.id)
    assert len(seen) == len({j.key for j in plan.jobs}) == len(plan.jobs)


def keys(preset: Preset) -> dict[str, str]:
    return {j.id: j.key for j in make_plan(preset).jobs}


def test_a_changed_recipe_changes_its_own_jobs_alone(tiny, monkeypatch):
    before, recipes = keys(tiny), load_recipes()
    rule = recipes["lion"].rules[0]
    other = recipes["lion"].model_copy(update={"rules": (rule.model_copy(update={"kwargs": {"betas": [0.8, 0.9]}}),)})
    monkeypatch.setattr(planning, "load_recipes", lambda: {**recipes, "lion": other})
    after = keys(tiny)
    assert {i for i in after if after[i] != before[i]} == {f"{k}-organism-qwen3-lion" for k in ("lr", "lambda", "evaluate")} | {
        "report"
    }


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"steps": 61}, {"lr", "lambda", "evaluate", "report"}),
        ({"spectral_lambda": {"grid": [0.5], "tolerance": 0.01}}, {"lambda", "evaluate", "report"}),
        ({"spectral_lambda": {"grid": [0.3, 1, 3], "tolerance": 0.02}}, {"lambda", "evaluate", "report"}),
        ({"summary": "other words"}, {"report"}),
    ],
)
def test_a_changed_preset_changes_what_follows(tiny, fields, kinds):
    tiny = changed(tiny, spectral_lambda={"grid": [0.3, 1, 3], "tolerance": 0.01})
    before, after = make_plan(tiny), make_plan(changed(tiny, **fields))
    assert {
        j.kind for j in after.jobs if j.key not in {b.key for b in before.jobs} and j.id != "evaluate-base-organism-qwen3"
    } == kinds


def test_packs_split_every_link(tiny):
    plan = make_plan(changed(tiny, recipes=["adamw"], pack=5))
    assert max(len(j.cells) for j in plan.jobs if j.kind in ("train", "evaluate")) == 5
    trained = Counter(c for j in plan.jobs if j.kind == "train" for c in j.cells)
    chosen_among = [c for j in plan.jobs if j.kind in ("lr", "lambda") for c in j.cells]
    again = {c for c in chosen_among if (c.learning_rate, c.spectral_lambda) == ("chosen", 0.0)}  # candidates of lr already
    assert set(trained) == set(chosen_among) - again and set(trained.values()) == {1}
    lr = plan.job("lr-organism-qwen3-adamw")
    assert {f"train-lr-organism-qwen3-adamw-{i}" for i in (1, 2, 3)} < set(lr.needs)


def test_a_list_of_lambdas_and_fixed_rates_need_no_choices(tiny):
    fixed = changed(
        tiny, recipes=["adamw", "sgd"], learning_rates="default", spectral_lambda=[0, 1], seeds=[0, 1], batch_sizes=[16, 32]
    )
    plan = make_plan(fixed)
    assert Counter(j.kind for j in plan.jobs) == {"base": 1, "train": 4, "evaluate": 5, "report": 1}
    trained = [c for j in plan.jobs if j.kind == "train" for c in j.cells]
    assert len(trained) == len(set(trained)) == 2 * 2 * 2 * 2 * 4
    assert not any("chosen" in c.name for c in trained)


def test_further_seeds_are_trained_with_what_the_first_chose(tiny):
    plan = make_plan(changed(tiny, recipes=["adamw"], seeds=[0, 1]))
    assert {c.seed for j in plan.jobs if j.kind in ("lr", "lambda") for c in j.cells} == {0}
    train = plan.job("train-organism-qwen3-adamw-1")
    assert {c.seed for c in train.cells} == {1} and {c.learning_rate for c in train.cells} == {"chosen"}
    assert len(plan.job("evaluate-organism-qwen3-adamw").cells) == 2 * 2 * 4


def test_parts_run_a_fraction_of_the_product_and_overlaps_once(tiny):
    fixed = {"learning_rates": "default", "spectral_lambda": [0, 1], "seeds": [0, 1], "batch_sizes": [16, 32]}
    parts = {
        "main": {"spectral_lambda": [0], "batch_sizes": [32]},
        "dynamics": {"recipes": ["adamw"], "spectral_lambda": [0], "batch_sizes": [32], "seeds": [0], "checkpoints": True},
        "path": {"recipes": ["adamw"], "datasets": ["code"], "batch_sizes": [16]},
        "rates": {"recipes": ["muon"], "spectral_lambda": [0], "batch_sizes": [32], "seeds": [1], "other_rates": True},
    }
    plan = make_plan(changed(tiny, recipes=["adamw", "muon"], base=False, parts=parts, **fixed))
    evaluated = [c for j in plan.jobs if j.kind == "evaluate" for c in j.cells]
    trained = [c for j in plan.jobs if j.kind == "train" for c in j.cells]
    assert len(evaluated) == len(set(evaluated)) == 2 * 4 * 2 + 1 * 2 * 2 + 4 * 2 and set(trained) == set(evaluated)
    assert {c.recipe for c in evaluated if c.batch_size == 16} == {"adamw"}
    grid = load_recipes()["muon"].learning_rates["organism"]
    assert {c.learning_rate for c in evaluated if c.recipe == "muon"} == set(grid.grid)
    assert {c.seed for c in evaluated if c.recipe == "muon" and c.learning_rate != grid.default} == {1}
    asked = [c for j in plan.jobs for c in j.checkpointed]
    assert len(asked) == 4 and {(c.recipe, c.seed, c.spectral_lambda, c.batch_size) for c in asked} == {("adamw", 0, 0.0, 32)}
    other = make_plan(changed(tiny, recipes=["adamw", "muon"], base=False, parts=parts | {"dynamics": parts["main"]}, **fixed))
    assert {j.id for j in plan.jobs if j.key != other.job(j.id).key} == {"evaluate-organism-qwen3-adamw-b32", "report"}


@pytest.mark.parametrize("setting", [{}, {"evaluation": {"checkpoints": True}}])
def test_without_parts_checkpoints_are_all_or_none(tiny, setting):
    plan = make_plan(
        Preset.model_validate(tiny.model_dump() | {"evaluation": tiny.evaluation.model_dump() | setting.get("evaluation", {})})
    )
    for job in plan.jobs:
        if job.kind == "evaluate" and job.cells[0].recipe:
            assert job.checkpointed == (job.cells if setting else ())


def test_makespan_of_a_diamond():
    def job(job_id, estimate, *needs):
        return Job(id=job_id, kind="train", needs=needs, key="0", code="0", estimate_s=estimate)

    jobs = [job("a", 1), job("b", 2, "a"), job("c", 4, "a"), job("d", 1, "b", "c")]
    assert makespan(jobs, 1) == 8
    assert makespan(jobs, 2) == 6
    assert makespan([*jobs, job("e", None)], 2) is None


def test_shipped_presets_are_sound():
    assert "tiny" in preset_names()
    for name in preset_names():
        assert load_preset(name).name == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ["no-such-model"]}, "models: no-such-model: no such model"),
        ({"recipes": ["adagrad"]}, "recipes: adagrad: no such recipe"),
        ({"datasets": ["no-such-data"]}, "no-such-data"),
    ],
)
def test_unknown_names(tiny, change, message):
    with pytest.raises(UserError, match=message) as e:
        make_plan(changed(tiny, **change))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not YAML"),
        ("name: x", "summary: Field required"),
        ("steps: {tiny}", "steps: Input should be a valid integer"),
        ("epochs: 1", "give either steps or epochs"),
        ("seeds: [0, 0]", "seeds names something twice"),
        ("provenance: {models: C}", "provenance must give a letter to each of"),
        ("learning_rates: {adam: [0.1]}", "must give a grid to each recipe"),
        ("parts: {a: {seeds: [7]}}", "parts.a.seeds: 7 is not on the preset's own axis"),
        ("parts: {a: {spectral_lambda: [1]}}", "the preset chooses its lambdas"),
        ("colour: red", "colour: Extra inputs are not permitted"),
    ],
)
def test_bad_preset_files(tmp_path, tiny, text, message):
    path = tmp_path / "mine.yaml"
    whole = {k: v for k, v in tiny.model_dump(mode="json").items() if v is not None}
    path.write_text(text if text in ("{", "name: x") else yaml.safe_dump(whole | yaml.safe_load(text)))
    with pytest.raises(UserError, match=message) as e:
        load_preset(str(path))
    assert str(path) in str(e.value)


def test_no_such_preset():
    with pytest.raises(UserError, match="name one of .*tiny"):
        load_preset("huge")
    with pytest.raises(UserError, match="no such file"):
        load_preset("huge.yaml")
