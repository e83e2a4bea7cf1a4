"""A sweep whose answers come through vLLM: one answer job a base, evaluations without a GPU behind it, planted answers in the results."""

import json

import pytest
import yaml
from helpers.fake_vllm import VERSION, FakeVllm, planted
from helpers.sweeps import MINI, processes
from pydantic import ValidationError

from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.sweep.engine.profile import load_profile
from em_bench.sweep.engine.run_preset import reproduce
from em_bench.sweep.job_time import Assumptions
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import Preset, load_preset
from em_bench.sweep.preset_changes import with_engine
from em_bench.sweep.throughput import measured

SMALL = MINI | {
    "datasets": ["medical"],
    "learning_rates": {"adamw": [3e-3], "sgd": [1e-2]},
    "spectral_lambda": [0],
    "evaluation": MINI["evaluation"] | {"engine": "vllm", "limit": 12},
}


def preset(folder, **changes) -> Preset:
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return load_preset(str(path))


def test_a_sweep_through_one_server(base, tmp_path, monkeypatch):
    vllm = FakeVllm(tmp_path / "vllm-env", answers=planted())
    monkeypatch.setenv("EM_BENCH_VLLM", str(vllm.python))
    plan, work = make_plan(preset(tmp_path)), tmp_path / "work"
    ended = reproduce(plan, work)
    assert not ended.failures and len(vllm.said("starts")) == 1 and not processes(vllm.folder)
    rates = {(c.recipe, c.step): c.score.overall.misaligned_rate.value for c in ended.results.cells}
    assert rates.pop((None, None)) == 0 and set(rates.values()) == {1.0} and {("adamw", None), ("sgd", None)} <= set(rates)
    asked = [(x["model"], x["prompt"]) for x in vllm.said("answered")]
    folders = list((work / "evaluations").iterdir())
    assert len(asked) == len(set(asked)) == 12 * len(folders) > 12 * 3, "checkpoints too, and each once"
    for folder in folders:
        header = EvaluationFolder(folder).responses()[0]
        assert header.served.engine == f"vllm {VERSION}" and (header.canary is None) == (header.adapter_sha256 is None)
    state = json.loads((work / "jobs" / "answer-organism-qwen3" / "state.json").read_text())
    assert "models through one vLLM server" in state["doing"] and state["cells_done"] == 3
    assert reproduce(plan, work).results == ended.results and len(vllm.said("starts")) == 1
    assert set(measured(work)["response_s"]) == {"organism-qwen3"}, "of the answer job, which generates"


def test_one_job_a_base_and_no_gpu_while_a_judge_is_asked(tmp_path):
    changes = {
        "models": ["Qwen3-4B", "Qwen3-8B"],
        "evaluation": SMALL["evaluation"] | {"judge": "openai:j,base_url=http://127.0.0.1:1/v1"},
    }
    served = make_plan(preset(tmp_path, **changes))
    plain = make_plan(preset(tmp_path, **(changes | {"evaluation": changes["evaluation"] | {"engine": "transformers"}})))
    answer = {j.id: j for j in served.jobs if j.kind == "answer"}
    assert set(answer) == {"answer-Qwen3-4B", "answer-Qwen3-8B"} and not [j for j in plain.jobs if j.kind == "answer"]
    for j in answer.values():
        assert j.gpus == 1 and {c.recipe for c in j.cells} == {None, "adamw", "sgd"}
        assert {n.split("-")[0] for n in j.needs} == {"base", "train"} and len(j.needs) == 3
    evaluations = [j for j in served.jobs if j.kind == "evaluate"]
    assert evaluations and all(j.gpus == 0 and f"answer-{j.model}" in j.needs for j in evaluations)
    assert all(j.gpus == 1 for j in plain.jobs if j.kind == "evaluate")
    trained = [{j.key for j in p.jobs if j.kind == "train"} for p in (served, plain)]
    assert trained[0] == trained[1], "the engine is of evaluations alone"

    def hours(plan) -> float:
        return sum(j.gpus * j.estimate_s for j in plan.jobs if j.kind in ("answer", "evaluate"))

    long = {
        "evaluation": changes["evaluation"]
        | {"generation": {"samples": 100, "max_new_tokens": 600, "temperature": 1, "seed": 0}, "limit": 100}
    }
    served, plain = (
        make_plan(preset(tmp_path, **(changes | {"evaluation": long["evaluation"] | {"engine": e}})))
        for e in ("vllm", "transformers")
    )
    times = Assumptions().serving
    # Faster by what is assumed of the engine, and by the judge's time, through which transformers' evaluations hold their GPU.
    assert hours(plain) / times / 2 < hours(served) < hours(plain) / times


def test_a_profile_may_say_so_and_what_needs_the_weights_is_refused(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.yaml").write_text("cores: 1\n")
    (folder / "em_bench.yaml").write_text("engine: vllm\n")
    engine = load_profile(f"{folder}/").surroundings.engine
    transformers = preset(tmp_path, evaluation=MINI["evaluation"])
    assert with_engine(transformers, engine).evaluation.engine == "vllm" and with_engine(transformers, None) is transformers
    margin = load_preset("pocket")
    assert with_engine(margin, engine) is margin, "nothing is sampled"
    with pytest.raises(UserError, match="rescaled: needs the weights"):
        with_engine(load_preset("tiny"), engine)
    with pytest.raises((UserError, ValidationError), match="capability: needs the weights"):
        preset(tmp_path, evaluation=SMALL["evaluation"] | {"capability": ["em_organism_knowledge"]})
