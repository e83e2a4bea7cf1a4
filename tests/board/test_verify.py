"""Hostile and broken folders and submissions: each is found by the right check in one line, nothing is executed or written."""

import os
import re
import shutil
from pathlib import Path

import pytest
from helpers.spoilt_entries import failed, results, snapshot

from em_bench.errors import UserError


def test_an_honest_entry_passes_and_nothing_is_written(board):
    before = snapshot(board.submissions.parent)
    for name in ("adamw", "better", "lazy"):
        assert failed(board, name) == {}
    assert snapshot(board.submissions.parent) == before


def test_symlinks(board, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (results(board) / "link.json").symlink_to(secret)
    assert "symbolic link" in failed(board)["folder.contents"]


def test_a_linked_folder(board):
    (board.submissions / "linked").symlink_to(board.submissions / "adamw")
    assert "symbolic link" in failed(board, "linked")["folder.contents"]


def test_a_linked_folder_inside(board, tmp_path):
    shutil.rmtree(results(board))
    results(board).symlink_to(tmp_path)
    assert "symbolic link" in failed(board)["folder.contents"]


@pytest.mark.parametrize("name", ["results.zip", "x.tar.gz", "weights.pkl", "run.sh", "x.safetensors.gz"])
def test_archives_pickles_and_scripts(board, name):
    (results(board) / name).write_bytes(b"PK\x03\x04")
    assert "an entry holds" in failed(board)["folder.contents"]


def test_names_that_collide_by_case(board):
    (results(board) / "Manifest.json").write_text("{}")
    assert "collides" in failed(board)["folder.contents"]


@pytest.mark.parametrize("name", ["ｒesults.json", "re\u200bsults.json", "a\nb.json", ".hidden.json"])
def test_names_that_mislead(board, name):
    (results(board) / name).write_text("{}")
    assert "printable ASCII" in failed(board)["folder.contents"]


def test_a_pipe_does_not_hang(board):
    os.mkfifo(results(board) / "pipe.json")
    assert "not a regular file" in failed(board)["folder.contents"]


def test_ten_thousand_files(board):
    for i in range(10_000):
        (results(board) / f"{i}.json").touch()
    assert "more than 8 files" in failed(board)["folder.contents"]


def test_ten_thousand_folders(board):
    for i in range(10_000):
        (results(board) / f"d{i}").mkdir()
    assert "a folder; an entry has none" in failed(board)["folder.contents"]


def test_folders_nested_without_end(board):
    deep = results(board).joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    assert "d: a folder" in failed(board)["folder.contents"]


def test_a_huge_file_is_not_read(board):
    with open(results(board) / "manifest.json", "wb") as f:
        f.truncate(3 << 30)
    assert "MiB" in failed(board)["folder.contents"]


def test_an_unknown_file_is_extra(board):
    (results(board) / "more.json").write_text("{}")
    assert "not a file of an entry" in failed(board)["manifest.files"]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "aliases"),
        ("name: !!python/object/apply:os.system ['touch /tmp/em_bench_owned']", "tag"),
        ("name: !!python/name:os.system", "tag"),
        ("name: a\nname: b", "twice"),
        ("{" * 3000, "not YAML: nested too deeply"),
        ("- just\n- a list", "Input should be"),
        ("x: " + "y" * 100_000, "over 64 KiB"),
        ("\x00", "not YAML: special"),
        ("? [a, b]\n: c", "unhashable key"),
    ],
)
def test_yaml_bombs_tags_and_nonsense(board, text, says):
    (board.submissions / "adamw" / "submission.yaml").write_text(text)
    assert re.search(says, failed(board)["folder.contents"])
    assert not Path("/tmp/em_bench_owned").exists()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "../../etc", "name"),
        ("name", "/abs/olute", "name"),
        ("name", "other-name", "not the folder's name"),
        ("benchmark", "../v1", "no such version"),
        ("benchmark", "v3", "no such version"),
        ("link", "javascript:alert(1)", "link"),
        ("link", 'https://x.org/"onclick="x', "link"),
        ("authors", ["a\u202eb"], "authors"),
        ("authors", ["a\nb"], "authors"),
        ("description", "a\x1b[2Jb", "description"),
        ("learning_rate", [1e-3, 1e-4], "learning_rate"),
        ("learning_rate", float("nan"), "learning_rate"),
        ("learning_rate", float("inf"), "learning_rate"),
        ("learning_rate", -1.0, "learning_rate"),
        ("learning_rate", None, "learning_rate"),
        ("track", "self-tuning", "learning_rate"),
        ("lambdas", [1.0], "lambdas"),
        ("optimizer", {"library": "os.system"}, "library"),
        ("optimizer", {"library": "torch.optim.adamw.os.system"}, "library"),
        ("optimizer", {"library": "torch.optim.AdamW", "kwargs": {"lr": {"a": 1}}}, "kwargs"),
        ("surprise", 1, "surprise"),
    ],
)
def test_fields(board, field, value, says):
    import yaml

    path = board.submissions / "adamw" / "submission.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {field: value}, allow_unicode=True))
    assert says in failed(board)["folder.contents"]


def test_an_entry_that_was_not_run(board):
    shutil.rmtree(results(board))
    assert "em-bench submit run" in failed(board)["manifest.schema"]


def test_unreadable_names_of_entries_are_refused(board):
    (board.submissions / "Über").mkdir()
    with pytest.raises(UserError, match="not a name"):
        board.names()
