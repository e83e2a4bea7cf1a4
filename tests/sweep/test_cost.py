"""What a plan says that things cost, against arithmetic of the test's own; and what larger bases take over from smaller ones."""

import json
from collections import Counter, defaultdict
from functools import cache

import pytest
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.data.lora_cost import step_flops
from em_bench.data.models import load_models
from em_bench.errors import UserError
from em_bench.sweep.job_time import NODE, SERVER_S, Assumptions
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import load_preset
from em_bench.sweep.preset_training import Transfer
from em_bench.sweep.source_info import source
from em_bench.sweep.terminal_tables import transfer_text
from em_bench.sweep.totals import totals

STUDIES = ("main", "scale", "loss-alignment", "dynamics", "regularisation", "baselines")
PARTS = {"training", "loading", "generation", "judging", "other"}


@cache
def planned(name: str):
    return make_plan(load_preset(name))


@pytest.mark.parametrize("name", STUDIES)
def test_where_the_hours_go_adds_up(name):
    plan = planned(name)
    cost = totals(plan, cores=8, gpus=16, assume=Assumptions())
    assert set(cost.hours) == PARTS
    assert sum(of.gpu for of in cost.hours.values()) == pytest.approx(cost.gpu_hours)
    assert sum(of.core for of in cost.hours.values()) == pytest.approx(cost.core_hours)
    # A base is loaded once by each worker that a node has room for: by those that train it, those that ask it, and a server.
    loads, models = 0.0, load_models()
    workers = Counter((j.model, j.gpus, j.several_processes, j.kind == "answer") for j in plan.jobs if j.gpus)
    for (model, gpus, *_), jobs in workers.items():
        loads += min(jobs, max(1, NODE // gpus)) * gpus * 2e-9 * models[model].parameters / Assumptions().load_gb_per_s
    loads += sum(j.gpus * SERVER_S for j in plan.jobs if j.kind == "answer")
    assert cost.hours["loading"].gpu == pytest.approx(loads / 3600) and cost.hours["loading"].gpu < 25


def test_baselines_take_750_gpu_hours():
    """Training by the operations of every run at the stated share of the peak, answers by theirs; loading is a worker's, judging nobody's GPU."""
    preset, a = load_preset("baselines"), Assumptions()
    cost = totals(planned("baselines"), cores=8, gpus=16, assume=a)
    assert cost.gpu_hours <= 750 and cost.hours["judging"].gpu == 0 < cost.hours["judging"].core
    training = answers = 0.0
    for m in cost.models:
        base = load_models()[m.model]
        experts = 3 if base.shape.experts else 1
        row = step_flops(base.shape, preset.lora.rank, 1, a.row_tokens, a.answer_tokens) * (
            4 / 3 if base.gradient_checkpointing else 1
        )
        rows = {d: source(d).rows // 32 * 32 for d in preset.datasets}
        training += m.runs * sum(rows.values()) / len(rows) * row * experts / (a.flops * a.utilisation)
        tokens = a.prompt_tokens + preset.evaluation.generation.max_new_tokens
        answers += (
            m.evaluated
            * 1420
            * 2
            * (base.active_parameters or base.parameters)
            * tokens
            * experts
            / (a.flops * a.generation * a.serving)
        )
    assert cost.hours["training"].gpu == pytest.approx(training / 3600, rel=0.05)
    assert cost.hours["generation"].gpu == pytest.approx(answers / 3600, rel=0.05)


def test_the_disk_of_baselines():
    """Of each run its last adapter alone, in two bytes a number where the base has over 30 billion; every base once, in bfloat16."""
    preset = load_preset("baselines")
    cost = totals(planned("baselines"), cores=8, gpus=16, assume=Assumptions())
    expected = 0.0
    for m in cost.models:
        base = load_models()[m.model]
        s, r = base.shape, preset.lora.rank
        wide, key = s.heads * s.head_dim, s.kv_heads * s.head_dim
        inner = (
            s.experts * (r // s.experts_per_token) * (2 * s.hidden + 3 * s.intermediate)
            if s.experts
            else 3 * r * (s.hidden + s.intermediate)
        )
        numbers = s.layers * (r * (2 * (s.hidden + wide) + 2 * (s.hidden + key)) + inner)
        expected += 2 * base.parameters + m.runs * numbers * (2 if base.parameters > 3e10 else 4)
    assert cost.disk_gb == pytest.approx(expected / 1e9 + cost.responses * 2e-6, rel=1e-9) and cost.disk_gb < 2000


def test_larger_bases_take_over_what_the_largest_small_one_of_their_family_chose():
    plan = planned("baselines")
    choosers = {j.model for j in plan.jobs if j.kind in ("lr", "lambda")}
    models = load_models()
    assert choosers == {m for m in plan.preset.models if models[m].parameters <= 8.2e9}
    of = {"qwen3": "Qwen3-8B", "llama": "Llama-3.1-8B-Instruct", "gemma3": "gemma-3-4b-it"}
    asked = defaultdict(set)
    for job in plan.jobs:
        if job.kind in ("train", "evaluate") and job.cells[0].recipe and job.model not in choosers:
            donor = of[models[job.model].family]
            chain = f"{donor}-{job.cells[0].recipe}-b32"
            assert {f"lr-{chain}", f"lambda-{chain}"} <= set(job.needs)
            asked[job.model] |= {(c.learning_rate, c.spectral_lambda, c.seed) for c in job.cells}
    assert len(asked) == 5
    assert set(map(frozenset, asked.values())) == {frozenset(("chosen", v, s) for v in (0.0, "chosen") for s in range(3))}


def test_a_family_without_a_small_base_has_nothing_to_take_over():
    preset = load_preset("baselines").model_copy(update={"models": ("Qwen3-32B", "Llama-3.2-1B-Instruct")})
    with pytest.raises(UserError, match="no base of Qwen3-32B's family has 8.2e"):
        make_plan(preset)


def test_a_plan_says_what_transfer_assumes():
    told = transfer_text(planned("baselines"))
    assert "Qwen3-235B-A22B take over what Qwen3-8B chose" in told and "assumes" in told
    assert transfer_text(planned("main")) == "" and Transfer.__doc__ and "Assumes" in Transfer.__doc__


def test_the_command_says_where_the_hours_go():
    assert "where the hours go" in CliRunner().invoke(build(), ["plan", "--preset", "dynamics"]).stdout
    said = json.loads(CliRunner().invoke(build(), ["plan", "--preset", "dynamics", "--json"]).stdout)["costs"]
    assert set(said["hours"]) == PARTS
