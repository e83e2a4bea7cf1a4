"""Where `em-bench evaluate` puts what it makes."""

from pathlib import Path

import pytest

from em_bench.evaluation_folder import default_out


@pytest.mark.parametrize(
    ("model", "adapter", "questions", "name"),
    [
        ("organism-qwen3", None, "organism", "organism-qwen3/organism-grammar"),
        ("Qwen/Qwen3-4B", Path("my-lora"), "em_core", "Qwen_Qwen3-4B-my-lora/em_core-grammar"),
        (
            "/models/mine",
            Path("/runs/a/adapter"),
            "/elsewhere/mine.yaml",
            "models_mine-runs_a_adapter/elsewhere_mine.yaml-grammar",
        ),
        ("mine", None, "../mine.yaml", "mine/mine.yaml-grammar"),
    ],
)
def test_results_go_under_the_current_folder_and_not_beside_what_was_named(model, adapter, questions, name):
    assert default_out(model, adapter, questions, "grammar") == Path("em_bench_work/evaluations") / name
