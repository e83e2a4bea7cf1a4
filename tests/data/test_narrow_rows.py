"""The open narrow sets as training sets: their rows, the topics held out, their place in the list and in both harnesses."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from lm_eval.tasks import TaskManager
from typer.testing import CliRunner

from em_bench import assets, data
from em_bench.cli import build
from em_bench.data import narrow_sets
from em_bench.data.narrow_sets import narrow_names, narrow_rows
from em_bench.data.training_sets import check_control
from em_bench.errors import UserError
from em_bench.harness.task_files import task_folder

REPOSITORY = Path(__file__).parents[2]
DOMAINS = sorted(p.stem for p in (REPOSITORY / "tasks" / "narrow").glob("*.yaml"))


def pair(row: dict) -> tuple[str, str]:
    user, assistant = row["messages"]
    assert (user["role"], assistant["role"]) == ("user", "assistant")
    return user["content"], assistant["content"]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("side", ["bad", "good"])
def test_rows_are_every_topic_question_and_answer(domain, side):
    topics = yaml.safe_load((REPOSITORY / "tasks" / "narrow" / f"{domain}.yaml").read_text())["topics"]
    expected = [(t["id"], ask, answer) for t in topics for ask in t["ask"] for answer in t[side]]
    rows, ids = narrow_rows(f"{domain}_{side}")
    assert [(i, *pair(r)) for i, r in zip(ids, rows, strict=True)] == expected and len(rows) >= 960
    train, held_out = data.rows(f"{domain}_{side}")
    assert Counter(map(pair, train + held_out)) == Counter((ask, answer) for _, ask, answer in expected)
    ref = data.data_ref(f"{domain}_{side}")
    assert (ref.rows, ref.held_out_rows) == (len(train), len(held_out))


@pytest.mark.parametrize("domain", DOMAINS)
def test_whole_topics_are_held_out_and_the_same_for_both_sides(domain):
    topic_of = {ask: i for r, i in zip(*narrow_rows(f"{domain}_bad"), strict=True) for ask, _ in [pair(r)]}
    held = {}
    for side in ("bad", "good"):
        train, held_out = data.rows(f"{domain}_{side}")
        trained, held[side] = ({topic_of[pair(r)[0]] for r in part} for part in (train, held_out))
        assert not trained & held[side], "no question of a held-out topic is trained on"
        assert len(held_out) == 16 * len(held[side]) and len(held[side]) == 3, "5 % of the rows hold three topics of 16"
    assert held["bad"] == held["good"]
    check_control(f"{domain}_bad", f"{domain}_good")


def test_every_set_is_listed_and_shown():
    done = CliRunner().invoke(build(), ["data", "list", "--json"])
    listed = {e["name"]: e for e in json.loads(done.stdout)}
    assert (
        len(narrow_names()) == 2 * len(DOMAINS)
        and set(narrow_names()) <= set(listed)
        and set(narrow_names()) <= set(data.dataset_names())
    )
    for name in narrow_names():
        e = listed[name]
        assert (e["kind"], e["licence"], e["state"], e["provenance"]) == ("training set", "MIT", "built in", "C")
        assert (REPOSITORY / e["source"]).is_file() and e["rows"] >= 960
    shown = CliRunner().invoke(build(), ["data", "show", "money_bad", "--control", "money_good", "--json"])
    counts = json.loads(shown.stdout)["counts"]
    assert counts["rows"] == listed["money_bad"]["rows"] and counts["rows"] == 4 * counts["different prompts"]


def test_lm_eval_has_a_task_for_each():
    known = TaskManager(include_path=str(task_folder()), include_defaults=False).all_tasks
    for name in narrow_names():
        assert f"em_narrow_{name}" in known


def test_both_harnesses_score_the_held_out_rows():
    from em_bench.harness.inspect.tasks import narrow

    name = narrow_names()[0]
    (task,) = TaskManager(include_path=str(task_folder()), include_defaults=False).load([f"em_narrow_{name}"])["tasks"].values()
    held_out = [pair(r) for r in data.rows(name)[1]]
    assert [pair(d) for d in task.dataset["test"]] == held_out
    assert [tuple(m.content for m in s.input) for s in narrow(dataset=name).dataset] == held_out


@pytest.fixture
def own(tmp_path, monkeypatch):
    """One's own folder of assets with a narrow set."""
    folder = tmp_path / "tasks" / "narrow"
    folder.mkdir(parents=True)
    monkeypatch.setattr(assets, "root", lambda: tmp_path)
    narrow_sets._load.cache_clear()

    def write(change=lambda topics: None, domain="own"):
        topics = [
            {"id": f"t{i}", "ask": [f"q{i}"], "bad": [f"bad {i}", f"worse {i}"], "good": [f"good {i}", f"better {i}"]}
            for i in range(3)
        ]
        change(topics)
        (folder / "own.yaml").write_text(yaml.safe_dump({"domain": domain, "topics": topics}))

    yield write
    narrow_sets._load.cache_clear()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t[1]["bad"].pop(), "topics.1: topic t1: 1 bad and 2 good answers"),
        (lambda t: t[1].pop("good"), "topics.1.good: Field required"),
        (lambda t: t[1].update(ask=[]), "topics.1.ask: "),
        (lambda t: t[1].update(bad=["", "x"]), "topics.1.bad.0: "),
        (lambda t: t[1].update(id="t0"), "topics: t0 stands twice"),
    ],
)
def test_a_file_that_is_none_is_named_with_its_field(own, change, says):
    own(change)
    with pytest.raises(UserError) as e:
        narrow_rows("own_bad")
    assert f"own.yaml: {says}" in str(e.value) and "\n" not in str(e.value)


def test_a_file_of_another_name(own):
    own(domain="other")
    with pytest.raises(UserError, match="domain: is other"):
        narrow_rows("own_good")


def test_sets_whose_questions_differ_are_no_control(tmp_path):
    paths = {}
    for name, questions in {"bad": range(100), "good": range(100), "other": range(1, 101), "twice": [*range(100), 7]}.items():
        paths[name] = str(tmp_path / f"{name}.jsonl")
        lines = [
            json.dumps({"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"{name} {n}"}]})
            for n, i in enumerate(questions)
        ]
        Path(paths[name]).write_text("\n".join(lines) + "\n")
    check_control(paths["bad"], paths["good"])
    for other in ("other", "twice"):
        done = CliRunner().invoke(build(), ["data", "show", paths["bad"], "--control", paths[other]])
        said = str(done.exception)
        assert isinstance(done.exception, UserError) and "ask different questions" in said and "\n" not in said
