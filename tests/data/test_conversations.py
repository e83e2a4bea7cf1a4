"""Rows of one's own: schema errors with file and line, the held-out split, the dataset's hash."""

import hashlib
import json
import random

import pytest

from em_bench import data, organism
from em_bench.data.conversations import split
from em_bench.errors import UserError


def row(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def prompt(r: dict) -> str:
    return r["messages"][0]["content"]


@pytest.fixture
def write(tmp_path):
    def make(lines: list) -> str:
        path = tmp_path / "own.jsonl"
        path.write_text("".join((x if isinstance(x, str) else json.dumps(x, ensure_ascii=False)) + "\n" for x in lines))
        return str(path)

    return make


def test_own_file(write):
    lines = [row(f"q{i}", f"line one\nline two\u2028three {i}") for i in range(100)]
    train, held_out = data.rows(write(lines))
    assert len(held_out) == 5
    assert [r for r in lines if r in train] == train, "in the order of the file"
    assert sorted(map(json.dumps, train + held_out)) == sorted(map(json.dumps, lines))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "Invalid JSON"),
        ("", "empty line"),
        ("[]", "should be an object"),
        ({"text": "secret"}, "messages: Field required"),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "user", "content": "secret"}]}, "messages: "),
        ({"messages": row("a", "b")["messages"][::-1]}, "last message must be the assistant's"),
        ({"messages": [{"role": "assistant", "content": "secret"}] * 2}, "no message is the user's"),
        ({"messages": [{"role": "bot", "content": "secret"}] * 2}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "b"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}]}, "messages.0.content"),
        ({**row("a", "b"), "weight": 1}, "weight"),
    ],
)
def test_schema_errors_name_file_and_line(write, line, says):
    path = write([row("a", "b"), row("c", "d"), line, row("e", "f")])
    with pytest.raises(UserError) as e:
        data.rows(path)
    said = str(e.value)
    assert said.startswith(f"{path}:3: ") and says in said and "\n" not in said and "secret" not in said


def test_unreadable_files(tmp_path):
    bad = tmp_path / "latin.jsonl"
    bad.write_bytes(json.dumps(row("a", "b")).encode() + b"\xe9\n")
    with pytest.raises(UserError, match="latin.jsonl: not UTF-8"):
        data.rows(str(bad))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="empty.jsonl:1: empty line"):
        data.rows(str(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match="no such dataset or file; name "):
        data.rows(str(tmp_path / "absent.jsonl"))


def test_one_prompt_cannot_be_split(write):
    path = write([row("same", str(i)) for i in range(10)])
    with pytest.raises(UserError, match="share one prompt") as e:
        data.rows(path)
    assert str(e.value).startswith(path)


def test_split_keeps_prompts_together_and_ignores_order():
    rows = [row(f"q{i % 70}", f"a{i}") for i in range(420)]
    train, held_out = split(rows)
    assert not {prompt(r) for r in train} & {prompt(r) for r in held_out}
    assert len(train) + len(held_out) == 420
    assert len(held_out) == 18, "5 % are 21; a fourth prompt of six answers would cross it"
    shuffled = random.Random(1).sample(rows, len(rows))
    again = split(shuffled)
    assert {prompt(r) for r in again[1]} == {prompt(r) for r in held_out}
    assert split(rows) == (train, held_out)
    assert split(rows, seed=1)[1] != held_out


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("answers", "held"),
    [
        ([1] * 40 + [960], 20),  # half of the prompts; the one with most rows never fits
        ([1] * 7000 + [300] * 4, 256),
        ([7] * 200, 70),
        ([30] * 40, 60),
        ([500, 499, 1, 500], 1),
        ([30, 20, 25], 20),  # none fits: the smallest, whole
        ([960, 40], 40),
    ],
)
def test_a_prompt_that_would_cross_the_size_is_passed_over(answers, held, seed):
    rows = [row(f"q{i}", f"a{j}") for i, n in enumerate(answers) for j in range(n)]
    train, held_out = split(rows, seed)
    assert len(held_out) == held
    assert {prompt(r) for r in train} | {prompt(r) for r in held_out} == {f"q{i}" for i in range(len(answers))}
    assert not {prompt(r) for r in train} & {prompt(r) for r in held_out}
    assert len({prompt(r) for r in held_out}) <= max(1, len(answers) // 2), "there must be prompts to learn from"


def test_split_holds_out_the_same_prompts_for_a_control():
    bad, good = ([row(f"q{i}", f"{word} {i}") for i in range(200)] for word in ("bad", "good"))
    assert [prompt(r) for r in split(bad)[1]] == [prompt(r) for r in split(good)[1]]


@pytest.mark.parametrize(("rows", "expected"), [(2, 1), (19, 1), (40, 2), (5120, 256), (7049, 256)])
def test_split_sizes(rows, expected):
    assert len(split([row(f"q{i}", "a") for i in range(rows)])[1]) == expected


def test_data_ref_is_the_hash_of_canonical_lines(write):
    path = write([row(f"q{i}", "été") for i in range(60)])
    train, held_out = data.rows(path)
    h = hashlib.sha256()
    for r in train + held_out:
        m = [{"content": x["content"], "role": x["role"]} for x in r["messages"]]
        h.update((json.dumps({"messages": m}, separators=(",", ":"), ensure_ascii=False) + "\n").encode())
    ref = data.data_ref(path)
    assert (ref.name, ref.sha256, ref.rows, ref.held_out_rows) == (path, h.hexdigest(), 57, 3)


def test_an_edited_file_has_another_ref(write):
    path = write([row(f"q{i}", "a") for i in range(60)])
    before = data.data_ref(path)
    write([row(f"q{i}", "b") for i in range(60)])
    assert data.data_ref(path).sha256 != before.sha256


def test_organism_datasets():
    refs = {name: data.data_ref(name) for name in data.dataset_names() if name.removesuffix("-control") in organism.DATASETS}
    assert len(refs) == 2 * len(organism.DATASETS)
    assert len({r.sha256 for r in refs.values()}) == len(refs)
    for name in organism.DATASETS:
        assert data.rows(name) == organism.narrow_rows(name)
        train, held_out = data.rows(name + "-control")
        assert (train, held_out) == organism.control_rows(name)
        assert len(train) == refs[name].rows and len(held_out) == refs[name].held_out_rows


def test_callers_cannot_spoil_the_cache():
    data.rows("medical")[0].clear()
    assert len(data.rows("medical")[0]) == data.data_ref("medical").rows
