"""What a preset may say beside its axes: a limit of questions, no judge, the base's dtype."""

from pathlib import Path

import pytest
from helpers.sweeps import preset_file, reproduce

from em_bench.evaluation_folder import EvaluationFolder
from em_bench.judging import NONE
from em_bench.records import NOT_ASKED, Results
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import load_preset
from em_bench.sweep.preset_changes import with_judge
from em_bench.sweep.source_info import judge_calls, responses


@pytest.fixture(scope="module")
def swept(base, tmp_path_factory) -> tuple[Path, str]:
    """The work folder of a sweep with all three, and what the command printed."""
    folder = tmp_path_factory.mktemp("fields")
    few = {"recipes": ["sgd"], "learning_rates": {"sgd": [1e-2]}, "datasets": ["medical"], "spectral_lambda": [0], "steps": 1}
    asked = {
        "questions": "organism", "limit": 5, "judge": NONE, "generation": {"samples": 2, "max_new_tokens": 4, "temperature": 1, "seed": 0}
    }  # fmt: skip
    preset = preset_file(folder, **few, evaluation=asked, dtype="float64")
    return folder / "work", reproduce(preset, folder / "work").stdout


def test_the_first_questions_are_asked_and_the_answers_kept(swept):
    results = Results.model_validate_json((swept[0] / "results.json").read_bytes())
    assert len(results.cells) == 2 and not results.missing
    for cell in results.cells:
        [folder] = [p.parent for p in swept[0].glob("evaluations/*/cell.json") if cell.responses_sha256 in p.read_text()]
        header, answers = EvaluationFolder(folder).responses()
        assert len(answers) == 10 and len({a.question_id for a in answers}) == 5 and header.dtype == "float64"
        assert {v.error for v in EvaluationFolder(folder).verdicts()[1]} == {NOT_ASKED}
        assert cell.score.overall.counts["unjudged"] == 10 and cell.score.overall.misaligned_rate.value is None


def test_the_base_of_a_run_has_the_dtype_of_the_preset(swept):
    [run] = swept[0].glob("runs/*/run.json")
    assert '"dtype": "float64"' in run.read_text()


def test_the_results_say_that_nothing_is_judged(swept):
    assert "mini: organism-qwen3 (nothing is judged)" in swept[1]
    assert "Nothing is judged." in (swept[0] / "report" / "index.html").read_text()


def test_a_plan_counts_what_is_asked(tmp_path):
    plan = make_plan(load_preset(str(preset_file(tmp_path))))
    asked = plan.preset.evaluation.model_copy(update={"limit": 5})
    assert (responses(plan.preset.evaluation), responses(asked)) == (162, 5)
    other = make_plan(plan.preset.model_copy(update={"dtype": "bfloat16"}))
    assert {j.kind for j in other.jobs if j.key != plan.job(j.id).key} == {j.kind for j in plan.jobs} - {"base"}
    assert "limit" not in plan.preset.evaluation.model_dump() and "dtype" not in plan.preset.model_dump()


def test_an_open_model_may_go_without_a_judge():
    preset = load_preset("main")
    make_plan(with_judge(preset, NONE))
    assert judge_calls(preset.evaluation) == 2 and judge_calls(with_judge(preset, NONE).evaluation) == 0
