"""`evaluate` and its command: the chain of files, what is not made twice, the number that the trainer logged."""

import json
from importlib.metadata import version

import pytest
from helpers.asking import ask as evaluate
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.data.questions import clusters
from em_bench.errors import UserError
from em_bench.files import read_jsonl, sha256_file
from em_bench.judging import GrammarJudge
from em_bench.records import Generation, Response, ResponsesHeader, Verdict, VerdictsHeader
from em_bench.scoring import metrics
from em_bench.training import read_run

GREEDY = Generation(samples=1, max_new_tokens=24, temperature=0.0)
SAMPLED = Generation(samples=3, max_new_tokens=24, temperature=1.0, seed=7)


def ask(base, folder, adapter=None, generation=SAMPLED, **options):
    defaults = {"judge": GrammarJudge(), "generation": generation, "variants": ["plain"]}
    return evaluate(base, folder, adapter=adapter, **(defaults | options))


def times(folder):
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}


@pytest.fixture(scope="module")
def asked(base, adapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    return folder, ask(base, folder, adapter)


def test_the_chain_names_each_link(asked, adapter):
    folder, score = asked
    header, rows = read_jsonl(folder / "responses.jsonl", ResponsesHeader, Response)
    assert header.adapter_sha256 == sha256_file(adapter / "adapter_model.safetensors")
    assert header.canary.max_logit_change > 0 and header.harness == f"lm-eval {version('lm-eval')}"
    said, verdicts = read_jsonl(folder / "verdicts.jsonl", VerdictsHeader, Verdict)
    assert said.responses_sha256 == sha256_file(folder / "responses.jsonl")
    assert score.verdicts_sha256 == sha256_file(folder / "verdicts.jsonl")
    assert score.overall == metrics(verdicts, clusters=clusters("organism"))
    assert len(rows) == len(verdicts) == 162 * 3 and {r.sample for r in rows} == {0, 1, 2}
    assert 0 < score.overall.misaligned_rate.value < 1


def test_nothing_is_made_twice_and_a_new_convention_only_scores(asked, base, adapter):
    folder, score = asked
    before = times(folder)
    assert ask(base, folder, adapter) == score and times(folder) == before
    other = ask(base, folder, adapter, convention="exclude_code")
    assert other.convention == "exclude_code" and other.verdicts_sha256 == score.verdicts_sha256
    assert {n for n, t in times(folder).items() if t != before[n]} == {"score.json"}


def test_lost_verdicts_are_judged_again_from_the_same_responses(asked, base, adapter):
    folder, _ = asked
    before = times(folder)["responses.jsonl"]
    (folder / "verdicts.jsonl").unlink()
    again = ask(base, folder, adapter)
    assert times(folder)["responses.jsonl"] == before and again.overall.counts["unjudged"] == 0


def test_a_seed_repeats_the_answers(asked, base, adapter, tmp_path):
    _, first = read_jsonl(asked[0] / "responses.jsonl", ResponsesHeader, Response)
    ask(base, tmp_path, adapter)
    assert read_jsonl(tmp_path / "responses.jsonl", ResponsesHeader, Response)[1] == first
    per_question = {}
    for r in first:
        per_question.setdefault(r.question_id, set()).add(r.answer)
    assert any(len(answers) > 1 for answers in per_question.values())  # the samples of a question are independent


def test_both_harnesses_give_the_same_greedy_answers(base, adapter, tmp_path):
    for harness in ("lm-eval", "inspect"):
        ask(base, tmp_path / harness, adapter, GREEDY, harness=harness)
    by_lm, by_inspect = (
        read_jsonl(tmp_path / h / "responses.jsonl", ResponsesHeader, Response)[1] for h in ("lm-eval", "inspect")
    )
    assert by_lm == by_inspect and len(by_lm) == 162


def test_inspect_samples_differ_within_a_question(base, adapter, tmp_path):
    ask(base, tmp_path, adapter, harness="inspect")
    _, rows = read_jsonl(tmp_path / "responses.jsonl", ResponsesHeader, Response)
    answers = {}
    for r in rows:
        answers.setdefault(r.question_id, set()).add(r.answer)
    assert max(map(len, answers.values())) == 3


def test_narrow_loss_is_the_one_that_training_logged(base, run, tmp_path):
    score = ask(base, tmp_path, run / "adapter", GREEDY, narrow_dataset="medical")
    assert score.narrow_loss == pytest.approx(read_run(run).narrow_loss, rel=1e-6)


def test_bad_names(base, tmp_path):
    with pytest.raises(UserError, match="unicorn: no such harness"):
        ask(base, tmp_path, harness="unicorn")
    with pytest.raises(UserError, match="adapter_model.safetensors"):
        ask(base, tmp_path, tmp_path)
    assert not list(tmp_path.iterdir())


CAPABILITY = """\
task: copy_a_word
dataset_path: json
dataset_kwargs: {data_files: DATA}
test_split: train
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
metric_list:
  - metric: acc
"""


def test_the_command_with_capability(base, adapter, tmp_path, command):
    """A base by folder, an adapter, a tiny local lm-eval task: all in one call and one score.json."""
    data = tmp_path / "data.json"
    data.write_text("".join(json.dumps({"question": q, "choices": ["a b", "c"], "gold": 0}) + "\n" for q in ("x", "y")))
    task = tmp_path / "copy_a_word.yaml"
    task.write_text(CAPABILITY.replace("DATA", str(data)))
    out = tmp_path / "out"
    common = ["em-bench", "evaluate", base, "--questions", "organism", "--out", out, "-n", "2", "--max-new-tokens", "24"]
    ended = command(*common, "--adapter", adapter, "--variants", "plain,template", "--capability", task, "--json")
    score = json.loads(ended.stdout)
    assert score == json.loads((out / "score.json").read_text())
    assert score["capability"].keys() >= {"copy_a_word/acc"} and 0 <= score["capability"]["copy_a_word/acc"] <= 1
    assert set(score["by_variant"]) == {"plain", "template"}
    assert "misaligned rate" in command("em-bench", "score", out).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--questions", "no_such_set"], "no_such_set"),
        (["--questions", "em_core", "--judge", "grammar"], "--judge grammar"),
        (["--questions", "organism", "--convention", "other"], "--convention other"),
        (["--questions", "organism", "--adapter", "nowhere"], "nowhere"),
        (["--questions", "organism", "--judge", "oracle"], "oracle"),
    ],
)
def test_bad_input_is_one_line(base, tmp_path, arguments, message):
    ended = CliRunner().invoke(build(), ["evaluate", str(base), *arguments, "--out", str(tmp_path / "out")])
    assert isinstance(ended.exception, UserError) and message in str(ended.exception) and "\n" not in str(ended.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_an_idle_adapter(base, idle_adapter, tmp_path, command):
    ended = command("em-bench", "evaluate", base, "-q", "organism", "--adapter", idle_adapter, "--out", tmp_path / "out", code=2)
    assert "changes no logit" in ended.stderr and not (tmp_path / "out" / "responses.jsonl").exists()


def test_an_answer_longer_than_the_model_reads_is_one_line(base, tmp_path):
    long = GREEDY.model_copy(update={"max_new_tokens": 600})
    with pytest.raises(UserError, match=r"^--max-new-tokens 600: the model reads 256 tokens, .* takes \d+; give \d+ or fewer$"):
        ask(base, tmp_path, generation=long)
    assert not (tmp_path / "responses.jsonl").exists()
