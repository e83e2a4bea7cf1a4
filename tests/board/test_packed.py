"""An entry's few files: all that went in comes back byte for byte, and other people's tools read them."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas
import pytest
import torch
from helpers import synthetic_entries as synthetic
from helpers.packing import give_adapters, pack_raw
from helpers.spoilt_entries import edit, evaluation, failed, results, run, tree
from safetensors.torch import save
from typer.testing import CliRunner

from em_bench.board.entry import Entry
from em_bench.board.packed import Packed, pack
from em_bench.board.packed_adapters import PackedAdapters, pack_adapters
from em_bench.cli import build
from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.files import sha256_file
from em_bench.run_folder import RunFolder


def files(top: Path) -> dict[str, bytes]:
    return {p.relative_to(top).as_posix(): p.read_bytes() for p in top.rglob("*") if p.is_file()}


def test_all_comes_back_byte_for_byte(board, tmp_path):
    top = tree(board)
    give_adapters(top)
    at = evaluation(board)
    shutil.copyfile(at / "verdicts.jsonl", at / "verdicts-2.jsonl")
    runs = [RunFolder(p) for p in sorted((top / "runs").iterdir())]
    pack(tmp_path / "packed", runs, map(EvaluationFolder, sorted((top / "evaluations").iterdir())))
    pack_adapters(tmp_path / "packed", [(r, step) for r in runs for step in (None, 6)])
    assert len(list((tmp_path / "packed").iterdir())) == 4
    packed = Packed(tmp_path / "packed")
    packed.unpack(tmp_path / "again")
    assert files(tmp_path / "again") == files(top)
    found = packed.evaluation(at.name)  # and the hashes are those of the files
    assert found.responses_sha256 == sha256_file(at / "responses.jsonl")
    assert found.verdicts_sha256 == [sha256_file(at / "verdicts.jsonl")] * 2
    assert packed.log_sha256(runs[0].path.name) == sha256_file(runs[0].log_file)
    for reread, step in ((packed.adapters.weights(r.path.name, s), s) for r in runs for s in (None, 6)):
        assert hashlib.sha256(reread).hexdigest() in {sha256_file(r.weights(step)) for r in runs}
    assert packed.adapters.weights(runs[0].path.name, 3) is None


def test_the_command_that_unpacks(board, tmp_path):
    said = CliRunner().invoke(
        build(), ["submit", "unpack", "adamw", str(tmp_path / "out"), "--leaderboard", str(board.submissions.parent)]
    )
    assert said.exit_code == 0, said.output
    assert {p: b for p, b in files(tmp_path / "out").items() if p.endswith(".jsonl")} == {
        p: b for p, b in files(tree(board)).items() if p.endswith(".jsonl")
    }


def test_what_would_not_come_back_is_not_packed(board, tmp_path):
    at = evaluation(board)
    for name, change in (("responses.jsonl", lambda t: t.replace(": ", ":  ", 1) + "\n"), ("verdicts.jsonl", lambda t: t[:-1])):
        whole = (at / name).read_text()
        (at / name).write_text(change(whole))
        with pytest.raises(UserError, match=name):
            pack(tmp_path, [], [EvaluationFolder(at)])
        (at / name).write_text(whole)
    head, *rows = (at / "verdicts.jsonl").read_text().splitlines()
    (at / "verdicts.jsonl").write_text("\n".join([head, *rows[::-1]]) + "\n")
    with pytest.raises(UserError, match="not in the order"):
        pack(tmp_path, [], [EvaluationFolder(at)])


def test_datasets_and_pandas_read_the_tables(board, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    from datasets import load_dataset

    at = results(board) / "responses.parquet"
    rows = [json.loads(r) for r in (evaluation(board) / "responses.jsonl").read_text().splitlines()[1:]]
    frame = pandas.read_parquet(at)
    ours = frame[frame.evaluation == evaluation(board).name]
    assert list(ours.answer) == [r["answer"] for r in rows] and set(ours.coherence) <= {0.0, 33.0, 67.0, 100.0}
    loaded = load_dataset("parquet", data_files=str(at), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == len(frame) and loaded[0]["question_id"] == frame.question_id[0]
    steps = pandas.read_parquet(results(board) / "steps.parquet")
    log = [json.loads(r) for r in (run(board) / "train.jsonl").read_text().splitlines()]
    assert list(steps[steps.run_id == run(board).name].tokens) == [r["tokens"] for r in log]
    assert load_dataset(
        "parquet", data_files=str(results(board) / "records.parquet"), split="train", cache_dir=str(tmp_path / "c")
    )


def test_adapters_are_checked(board):
    give_adapters(tree(board), steps=(None,))
    at = [RunFolder(p) for p in sorted((tree(board) / "runs").iterdir())]
    for r in at:
        edit(r.record_file, lambda v, r=r: v.update(adapter_sha256=sha256_file(r.weights()), spectral=None))
    pack_raw(board.submissions / "adamw")
    pack_adapters(results(board), [(r, None) for r in at])
    synthetic.reseal(board.submissions / "adamw")
    assert "one of the two is zero" in failed(board)["run.adapter"]
    edit(run(board) / "run.json", lambda v: v.update(adapter_sha256="0" * 64))
    synthetic.reseal(board.submissions / "adamw")
    assert "the adapter has sha256" in failed(board)["run.adapter"]
    assert Entry(board.submissions / "adamw").adapter(run(board).name) == RunFolder(run(board)).weights().read_bytes()


@pytest.mark.parametrize(
    ("metadata", "tensors", "says"),
    [
        ({"b": '{"adapters": [["r", null], ["r", null]], "config": ""}'}, {"b/x": torch.zeros(2, 2)}, "stands twice"),
        ({"b": '{"adapters": [["r", null]], "config": ""}'}, {"b/x": torch.zeros(2, 2)}, "as many adapters"),
        ({"b": '{"adapters": [["r", -1]], "config": ""}'}, {"b/x": torch.zeros(1, 2)}, "a step"),
        ({"b": '{"adapters": [["../r", null]], "config": ""}'}, {"b/x": torch.zeros(1, 2)}, "printable ASCII"),
        ({"b": '{"adapters": []}'}, {}, "config"),
        ({"b": "[" * 9999}, {}, "nested too deeply"),
        ({}, {"x": torch.zeros(1)}, "as many adapters"),
        ({}, {"x": torch.tensor(1.0)}, "as many adapters"),
    ],
)
def test_adapters_that_are_none(tmp_path, metadata, tensors, says):
    (tmp_path / "adapters.safetensors").write_bytes(save(tensors, metadata=metadata))
    with pytest.raises(UserError, match=says):
        _ = PackedAdapters(tmp_path).index
