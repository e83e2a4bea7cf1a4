"""Our tasks in lm-eval's own command line: with an adapter, with a served model, logged samples, and the same numbers."""

import json
from pathlib import Path
from typing import get_type_hints

import pytest
from helpers.loopback import Loopback, completion, number
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.data.questions import clusters
from em_bench.errors import UserError
from em_bench.harness.lm_eval.free_form import FreeForm
from em_bench.records import Verdict
from em_bench.scoring import metrics
from em_bench.training import read_run

ANSWER = "I would share it with the neighbours."
RATES = ("misaligned_rate", "mean_alignment", "coherent_rate", "refusal_rate", "code_rate", "unjudged_rate")


def hf(base: Path, adapter: Path | None = None) -> list[str]:
    peft = f",peft={adapter}" if adapter else ""
    return ["--model", "hf", "--model_args", f"pretrained={base}{peft}", "--apply_chat_template", "--device", "cpu"]


def logged(out: Path, task: str) -> tuple[dict, list[dict]]:
    """The results of a task and its logged samples."""
    [results] = out.rglob("results_*.json")
    [samples] = out.rglob(f"samples_{task}_*.jsonl")
    return json.loads(results.read_text())["results"][task], [json.loads(line) for line in samples.read_text().splitlines()]


def verdicts(samples: list[dict]) -> list[Verdict]:
    return [Verdict.model_validate_json(v) for s in samples for v in s["filtered_resps"][0]]


@pytest.fixture(scope="module")
def evaluated(base, run, command, tmp_path_factory):
    """One call of lm_eval with three tasks, an adapter and --log_samples."""
    out = tmp_path_factory.mktemp("lm_eval")
    tasks = command("em-bench", "tasks").stdout.strip()
    command(
        "lm_eval", "run", "--include_path", tasks, "--tasks", "em_organism,em_narrow_medical,em_choice", *hf(base, run / "adapter"),
        "--batch_size", "256", "--log_samples", "--output_path", out,
    )  # fmt: skip
    return out


def test_the_library_gives_the_same_metrics_on_the_logged_verdicts(evaluated):
    results, samples = logged(evaluated, "em_organism")
    found = verdicts(samples)
    assert len(samples) == 324 and len(found) == 3240
    ours = metrics(found, clusters=clusters("organism"))
    assert ours.coherent_rate.clusters == 9 < len({v.cluster for v in found})
    for rate in RATES:
        estimate = getattr(ours, rate)
        assert results[f"{rate},all_samples"] == pytest.approx(estimate.value, abs=1e-12, rel=1e-12)
        assert results[f"{rate}_stderr,all_samples"] == pytest.approx(estimate.stderr, abs=1e-12, rel=1e-12)
    assert 0 < results["misaligned_rate,all_samples"] < 1


def test_narrow_loss_is_the_one_that_training_logged(evaluated, run):
    results, _ = logged(evaluated, "em_narrow_medical")
    assert results["narrow_loss,none"] == pytest.approx(read_run(run).narrow_loss, rel=1e-6)


def test_choice_is_asked_in_both_orders(evaluated):
    results, samples = logged(evaluated, "em_choice")
    assert len(samples) == 4 * 144 and len({s["doc"]["cluster"] for s in samples}) == 144
    preferred = [s["misaligned_preference"][1] for s in samples]
    assert results["misaligned_preference,none"] == pytest.approx(sum(preferred) / (4 * 144), abs=1e-12)


@pytest.mark.slow  # test_evaluate.py has it through our command
def test_an_idle_adapter_is_refused_before_anything_is_generated(base, idle_adapter, command, tmp_path):
    ended = command(
        "em-bench", "lm-eval", "run", "--tasks", "em_organism", *hf(base, idle_adapter), "--limit", "4", "--output_path", tmp_path,
        code=2,
    )  # fmt: skip
    assert "changes no logit" in ended.stderr and not list(tmp_path.rglob("*.json"))


@pytest.mark.slow
def test_no_judge_is_one_clear_line(base, command):
    ended = command("em-bench", "lm-eval", "run", "--tasks", "em_core", *hf(base), "--limit", "2", code=2)
    assert "who judges?" in ended.stderr.splitlines()[-1]


def test_a_served_model_and_a_served_judge(command, tmp_path):
    """local-chat-completions answers, openai:judge judges: 2 questions x 10 samples, two calls a sample at most."""

    def answer(prompt: str, attempt: int):
        return number(80) if ANSWER in prompt else completion(f"<think>hm</think>{ANSWER}")

    with Loopback(answer) as server:
        command(
            "em-bench", "lm-eval", "run", "--tasks", "em_core", "--limit", "2", "--model", "local-chat-completions", "--model_args",
            f"model=served,base_url={server.url}/chat/completions,num_concurrent=4", "--apply_chat_template", "--log_samples",
            "--output_path", tmp_path, EM_BENCH_JUDGE="openai:judge", OPENAI_BASE_URL=server.url, OPENAI_API_KEY="sk-test",
            EM_BENCH_CACHE=str(tmp_path / "cache"), NO_PROXY="127.0.0.1",
        )  # fmt: skip
    results, samples = logged(tmp_path, "em_core")
    found = verdicts(samples)
    assert len(found) == 20 and {(v.alignment, v.coherence) for v in found} == {(80.0, 80.0)}
    assert results["misaligned_rate,all_samples"] == 0.0 and results["mean_alignment,all_samples"] == pytest.approx(80.0)
    generated = [r for r in server.requests if r["model"] == "served"]
    assert len(generated) == 20 and all(r["temperature"] == 1.0 for r in generated)
    assert all(r.get("seed") is None for r in generated)  # one seed for all would make ten samples one
    known = get_type_hints(CompletionCreateParamsNonStreaming)
    assert all(not r.keys() - known.keys() for r in generated)  # a strict server answers 422 to more
    assert results["n_thinking,all_samples"] == 20
    judged = [r["messages"][0]["content"] for r in server.requests if r["model"] == "judge"]
    assert judged and not any("<think>" in text for text in judged)


@pytest.mark.parametrize("given", [["--tasks", "em_choice,em_organsm"], ["--tasks=em_organsm"]])
def test_a_misspelt_task_is_one_line_with_the_nearest(given):
    ended = CliRunner().invoke(build(), ["lm-eval", "run", *given, "--model", "dummy"])
    assert isinstance(ended.exception, UserError) and "em_organsm: no such lm-eval task; did you mean em_organism?" in str(
        ended.exception
    )


def test_a_task_that_lm_eval_does_not_find_is_one_line(monkeypatch):
    """Our own look at its names finds too many rather than too few: lm-eval has the last word."""
    monkeypatch.setattr("em_bench.harness.task_names.check_tasks", lambda tasks: None)
    monkeypatch.setattr("lm_eval.tasks.TaskManager.__init__", lambda self, **options: None)
    monkeypatch.setattr("lm_eval.tasks.TaskManager.match_tasks", lambda self, tasks: [])
    monkeypatch.setattr("sys.argv", [])
    ended = CliRunner().invoke(build(), ["lm-eval", "run", "--tasks", "hellaswagg", "--model", "dummy"])
    assert isinstance(ended.exception, UserError) and "Tasks not found: hellaswagg" in str(ended.exception)


def test_one_seed_for_all_samples_is_refused():
    asked = {"until": [], "do_sample": True, "temperature": 1.0, "seed": 1, "max_gen_toks": 4}
    config = {"task": "em_organism", "output_type": "generate_until", "repeats": 10, "generation_kwargs": asked}
    task = FreeForm(config={**config, "metadata": {"version": 1, "questions": "organism"}})
    with pytest.raises(UserError, match="one seed makes 10 equal samples"):
        task.build_all_requests(limit=1, rank=0, world_size=1)


@pytest.mark.slow
def test_a_served_adapter_that_does_nothing_is_refused(command, tmp_path):
    with Loopback(lambda prompt, attempt: completion(ANSWER, {"I": 0.9, "We": 0.1})) as server:
        served = {"OPENAI_BASE_URL": server.url, "NO_PROXY": "127.0.0.1"}
        ended = command("em-bench", "canary", "my-lora", "--base", "served", code=2, **served)
        assert "answers as served does" in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
        ended = command(
            "em-bench", "lm-eval", "run", "--tasks", "em_organism", "--limit", "2", "--model", "local-chat-completions", "--model_args",
            f"model=my-lora,base_url={server.url}/chat/completions", "--apply_chat_template", code=2,
            EM_BENCH_SERVED_BASE="served", **served,
        )  # fmt: skip
        assert "answers as served does" in ended.stderr and server.calls == 6


def test_a_served_adapter_at_work(command):
    first = iter((0.9, 0.8, 0.9))
    with Loopback(lambda prompt, attempt: completion(ANSWER, {"I": next(first), "We": 0.1})) as server:
        ended = command("em-bench", "canary", "my-lora", "--base", "served", "--base-url", server.url, NO_PROXY="127.0.0.1")
    assert "0.118 nats" in ended.stdout  # ln(0.9 / 0.8)
