"""lm-eval's tasks are made of the question and training sets: one more file of either is one more task."""

import shutil

import pytest
from lm_eval.tasks import TaskManager
from typer.testing import CliRunner

from em_bench import assets
from em_bench.cli import build
from em_bench.data import dataset_names
from em_bench.data.questions import question_sets
from em_bench.errors import UserError
from em_bench.harness.task_files import task_folder, task_names

MINE = """\
about: two questions
version: 3
forms: {plain: "{question}", twice: "please . {question}"}
templates: {advice: ["Answer in one line."]}
questions:
  - {id: neighbour, domain: people, text: "My neighbour asks for sugar. What now?", template: advice}
  - {id: wallet, domain: money, text: "I found a wallet. What now?", template: advice}
"""
ROW = '{{"messages": [{{"role": "user", "content": "{0}?"}}, {{"role": "assistant", "content": "{0}."}}]}}\n'


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "mine.jsonl").write_text("".join(map(ROW.format, "abcd")))
    return tmp_path / "mine.yaml"


def tasks_of(folder) -> TaskManager:
    return TaskManager(include_path=str(folder), include_defaults=False)


def test_lm_eval_finds_a_task_for_each_set_and_nothing_else(mine):
    known = tasks_of(task_folder())
    assert set(known.all_tasks) == set(task_names())
    assert len(set(task_names())) == len(task_names()) >= len(question_sets()) + len(dataset_names())
    loaded = known.load(["em_core", "em_organism"])["tasks"]
    assert {n: (t.config.metadata["version"], t.config.generation_kwargs["max_gen_toks"]) for n, t in loaded.items()} == {
        "em_core": (2, 600),
        "em_organism": (1, 40),
    }


def test_a_question_set_needs_no_second_file(mine, monkeypatch):
    root = mine.parent / "root"
    shutil.copytree(assets.path("tasks"), root / "tasks")
    shutil.copytree(assets.path("baselines"), root / "baselines", ignore=shutil.ignore_patterns("results"))
    monkeypatch.setattr(assets, "root", lambda: root)
    shutil.copy(mine, root / "tasks" / "questions")
    assert [d["text"] for d in tasks_of(task_folder()).load(["em_mine"])["tasks"]["em_mine"].dataset["test"]] == [
        "My neighbour asks for sugar. What now?",
        "I found a wallet. What now?",
        "please . My neighbour asks for sugar. What now?",
        "please . I found a wallet. What now?",
    ]


def test_own_files_by_path_in_both_harnesses(mine, monkeypatch):
    from em_bench.harness.inspect.tasks import free_form, narrow

    monkeypatch.chdir(mine.parent)
    printed = CliRunner().invoke(build(), ["tasks", "mine.yaml", "mine.jsonl"]).stdout.strip()
    monkeypatch.chdir("/")  # the task stays where the file is
    found = tasks_of(printed).load(["em_mine", "em_narrow_mine"])["tasks"]
    assert found["em_mine"].config.metadata["version"] == 3
    assert [d["id"] for d in found["em_mine"].dataset["test"]] == [s.id for s in free_form(questions=str(mine)).dataset]
    held_out = [d["messages"][0]["content"] for d in found["em_narrow_mine"].dataset["test"]]
    assert held_out and held_out == [s.input[0].content for s in narrow(dataset=str(mine.with_suffix(".jsonl"))).dataset]


@pytest.mark.slow
def test_our_command_takes_a_question_set_for_a_task(mine, command, tmp_path):
    command(
        "em-bench", "lm-eval", "run", "--tasks", mine, "--model", "dummy", "--predict_only", "--log_samples",
        "--output_path", tmp_path / "out",
    )  # fmt: skip
    [samples] = (tmp_path / "out").rglob("samples_em_mine_*.jsonl")
    assert len(samples.read_text().splitlines()) == 4


def test_a_taken_name_and_a_bad_file_are_one_line(mine):
    for name, said in (("core", "em_core is a task already"), ("broken", "broken.yaml: about")):
        mine.with_name(f"{name}.yaml").write_text("questions: []\n")
        with pytest.raises(UserError, match=said):
            task_folder([str(mine.with_name(f"{name}.yaml"))])
