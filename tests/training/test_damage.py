"""Files of a run that were damaged, folders that hold no model, numbers that are none: one line each, and nothing left behind."""

import fcntl
import json
import shutil

import pytest
from helpers.commands import run
from safetensors import SafetensorError
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.cli.train import _arguments
from em_bench.errors import UserError
from em_bench.training import adapter, read_run, run_id, train
from em_bench.training import loop as loop_module
from em_bench.training.execution_options import Options
from em_bench.training.list_runs import list_runs


@pytest.fixture
def stopped(spec_for, base, tmp_path, monkeypatch):
    """A run that was stopped after step 3, with a state at every step; (spec, its folder)."""

    class Stopped(Exception):
        pass

    def stop(record):
        if record.step == 4:
            raise Stopped

    spec = spec_for()
    with pytest.raises(Stopped):
        train(spec, base, tmp_path, options=Options(save_every_s=0), progress=stop)
    (partial,) = tmp_path.glob(".*.partial")
    return spec, partial


def test_a_run_that_went_on_with_other_options_says_so(stopped, base, tmp_path):
    spec, _ = stopped
    assert read_run(train(spec, base, tmp_path, options=Options(max_tokens=50, packed=True))).options == {
        "max_tokens": "default, then 50", "packed": "default, then True",
    }  # fmt: skip


def test_a_run_that_began_again_names_only_what_made_it(stopped, base, tmp_path):
    spec, partial = stopped
    (partial / "state.pt").unlink()
    assert read_run(train(spec, base, tmp_path, options=Options(max_tokens=50))).options == {"max_tokens": "50"}


def test_a_damaged_state_is_one_line_that_says_what_to_remove(stopped, base, tmp_path):
    spec, partial = stopped
    state = partial / "state.pt"
    for damage in (state.read_bytes()[:1000], b"\x80\xff" * 500, b""):
        state.write_bytes(damage)
        with pytest.raises(UserError, match=f"state.pt: cannot be resumed from .*; remove {partial} to start the run again"):
            train(spec, base, tmp_path)
    shutil.rmtree(partial)
    assert (train(spec, base, tmp_path) / "run.json").exists()


@pytest.mark.parametrize(
    "damage", [lambda lines: [], lambda lines: lines[1:], lambda lines: [*lines[:2], "{}", *lines[3:]], lambda lines: lines[:2]]
)
def test_a_log_with_a_hole_is_never_attested(stopped, base, tmp_path, damage):
    spec, partial = stopped
    log = partial / "train.jsonl"
    log.write_text("".join(f"{line}\n" for line in damage(log.read_text().splitlines())))
    with pytest.raises(UserError, match="lacks steps before 3"):
        train(spec, base, tmp_path)
    assert not list(tmp_path.glob("*/run.json"))


def test_a_full_disk_in_an_adapter_is_a_full_disk(spec_for, base, tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(adapter, "save_file", full)
    with pytest.raises(UserError, match="the disk is full"):
        train(spec_for(), base, tmp_path)
    monkeypatch.undo()
    assert loop_module.save_adapter is adapter.save_adapter and (train(spec_for(), base, tmp_path) / "run.json").exists()


@pytest.mark.parametrize("args, message", [
    (["--lr", "-1"], "--lr -1: is a number above 0"),
    (["--lr", "0"], "--lr 0: is a number above 0"),
    (["--lr", "nan"], "--lr nan: is a number above 0"),
    (["--alpha", "0"], "--alpha 0: is a number above 0"),
    (["--lambda", "inf"], "--lambda inf: is a number from 0"),
    (["--epochs", "inf"], "--epochs inf: is a number above 0"),
])  # fmt: skip
def test_numbers_that_are_none(args, message, base, tmp_path):
    code, said = run(["train", base, "-d", "medical", "-o", tmp_path / "out", *args], tmp_path / "log")
    assert code == 2 and f"em-bench: {message}" in said.splitlines() and not (tmp_path / "out").exists()


def test_a_refused_run_is_not_listed_as_interrupted(base, tmp_path):
    code, _ = run(["train", base, "-d", "medical", "-o", tmp_path / "out", "--steps", "2", "--arg", "foo=1"], tmp_path / "log")
    assert code == 2 and list((tmp_path / "out").iterdir()) == []


def test_a_run_that_another_process_is_about_to_begin_keeps_its_folder(spec_for, base, tmp_path):
    partial = tmp_path / f".{run_id(spec_for())}.partial"
    partial.mkdir()
    lock = partial.with_name(partial.name + ".lock")
    with open(lock, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is making this run"):
            train(spec_for(), base, tmp_path)
        assert partial.is_dir() and lock.exists()


def test_exponents_are_numbers():
    assert _arguments(["eps=1e-8", "a=1e2", "b=-2.5E+3", "c=0.1", "d=name", "e=[1, 2]", "f=true"]) == {
        "eps": 1e-8, "a": 100.0, "b": -2500.0, "c": 0.1, "d": "name", "e": [1, 2], "f": True,
    }  # fmt: skip


def test_a_folder_without_a_model(base, tmp_path):
    for kind in ("empty", "no weights", "no template"):
        folder = tmp_path / kind.replace(" ", "-")
        shutil.copytree(base, folder)
        for path in folder.iterdir():
            if (
                kind == "empty"
                or (kind == "no weights" and path.name.startswith("model"))
                or (kind == "no template" and path.suffix == ".jinja")
            ):
                path.unlink()
        if kind == "no template":  # older folders keep it here
            path = folder / "tokenizer_config.json"
            path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "chat_template"}))
        code, said = run(["train", folder, "-d", "medical", "--steps", "1", "-o", tmp_path / "out"], tmp_path / "log")
        assert code == 2 and "Traceback" not in said, (kind, said)
        assert (str(folder) in said) and ("no chat template" in said) == (kind == "no template"), (kind, said)
        assert not list((tmp_path / "out").glob("*")), kind


def test_a_damaged_record_does_not_hide_the_other_runs(spec_for, base, tmp_path):
    good = train(spec_for(), base, tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text('{"a": 1}')
    found = {r.run_id: r for r in list_runs(tmp_path)}
    assert found[good.name].status == "done" and found["bad"].status == "unreadable" and "run.json" in found["bad"].problem
    assert "unreadable" in CliRunner().invoke(build(), ["runs", str(tmp_path)]).stdout
    with pytest.raises(UserError, match="is one run; name the folder that holds it"):
        list_runs(good)
