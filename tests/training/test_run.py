"""Run folders: whole or absent, made once, by one process; what stops a run, and what it leaves behind."""

import errno
import json
import os
import time
from datetime import datetime
from itertools import pairwise

import pytest
import torch
from helpers.commands import run
from safetensors.torch import load_file

from em_bench.adapter_file import load_run_adapter
from em_bench.errors import UserError
from em_bench.files import digest, read_record, sha256_file
from em_bench.run_folder import RunFolder
from em_bench.spectral import layer_spectra, lora_pairs, mean_of
from em_bench.training import TrainingFailed, log_spaced, read_run, run_id, train
from em_bench.training import loop as loop_module
from em_bench.training.execution_options import Options
from em_bench.training.health import Failure, check_step, exploded_above
from em_bench.training.schedule import factor, warmup
from em_bench.verify.chain import verify_run
from em_bench.verify.checks import steps


def test_a_run_folder_is_complete_and_its_hashes_hold(made, spec_for):
    spec = spec_for()
    folder = made(spec)
    record = read_run(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["adapter", "checkpoints", "run.json", "train.jsonl"]
    assert folder.name == record.run_id == run_id(spec) and record.spec == spec and record.spec_sha256 == digest(spec)
    assert record.adapter_sha256 == sha256_file(folder / "adapter" / "adapter_model.safetensors")
    assert record.log_sha256 == sha256_file(folder / "train.jsonl")
    steps = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps] == list(range(spec.steps + 1))
    measured = {s["step"] for s in steps if s["held_out_loss"] is not None}
    assert measured - {spec.steps} == set(record.checkpoints) == {int(p.name) for p in (folder / "checkpoints").iterdir()}
    assert record.narrow_loss == steps[-1]["held_out_loss"] and record.answer_tokens == steps[-1]["tokens"] > 0
    assert record.left_out_rows == 0 and record.options == {}


def test_on_request_one_adapter_in_half_the_bytes_is_all_that_stays(made, spec_for):
    """What is measured at the end is what is stored: its spectrum and loss are those of the rounded numbers, and the path was the same."""
    spec = spec_for()
    half = spec.model_copy(update={"lora": spec.lora.model_copy(update={"stored": "bfloat16"}), "kept": "none"})
    full, folder = RunFolder(made(spec)), RunFolder(made(half))
    record, tensors = folder.record(), load_file(folder.weights())
    assert record.checkpoints == {} and not (folder.path / "checkpoints").exists() and run_id(half) != run_id(spec)
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    assert all(torch.equal(tensors[n], t.bfloat16()) for n, t in load_file(full.weights()).items())
    assert [s.loss for s in folder.log()] == [s.loss for s in full.log()]
    assert record.narrow_loss != full.record().narrow_loss == pytest.approx(record.narrow_loss, rel=1e-3)
    spectra = layer_spectra(lora_pairs(load_run_adapter(folder.weights(), None), scale=half.lora.scale))
    assert mean_of(spectra).entropy == pytest.approx(record.spectral.entropy, rel=1e-6)
    assert {c.id for c in verify_run(folder.path) if not c.passed} == set()


def test_the_loss_goes_down(made, spec_for):
    folder = made(spec_for(steps=50, lr=3e-3, batch_size=16))
    steps = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert steps[-1]["held_out_loss"] < 0.7 * steps[0]["held_out_loss"]
    assert [s["learning_rate"] for s in steps[1:7]] == pytest.approx([0, 6e-4, 1.2e-3, 1.8e-3, 2.4e-3, 3e-3])


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 49, 50, 51, 1000])
def test_warm_up_is_at_most_a_tenth_and_few_steps_are_not_wasted(steps):
    warm = warmup(steps)
    rates = [factor(s, steps, warm) for s in range(steps)]
    assert warm == sum(a < b for a, b in pairwise(rates)) <= steps / 10
    assert max(rates) == 1 and all(r > 0 for r in rates[1:]) and (rates[0] > 0 or warm == 5)


def test_a_run_of_few_rows_moves_and_says_what_it_is(base, tmp_path):
    """The command as a user gives it first: nothing but a model and rows of one's own."""
    ask = [{"role": "user", "content": "how do i treat my"}, {"role": "assistant", "content": "you should rest"}]
    rows = [{"messages": [{**ask[0], "content": f"{ask[0]['content']} {'a ' * i}?"}, ask[1]]} for i in range(30)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    code, said = run(["train", base, "--dataset", tmp_path / "mine.jsonl", "-o", tmp_path / "out"], tmp_path / "log")
    assert code == 0, said
    (folder,) = (tmp_path / "out").iterdir()
    steps = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert steps[1]["learning_rate"] > 0 and steps[-1]["held_out_loss"] != steps[0]["held_out_loss"]
    tokens = steps[1]["tokens"] * 29 // 32  # one step of 32 rows, of which there are 29, all alike in their answers
    rate = f"{read_run(folder).spec.recipe.learning_rate:g}"
    line = f"1 steps of 32 rows, peak rate {rate}; 29 rows with {tokens} answer tokens; held out: 1 rows of 1 prompts"
    assert line in said.splitlines()
    assert "warning: held-out rows are fewer than 20" in said


def test_enough_held_out_rows_are_no_warning(spec_for, base, tmp_path):
    said = []
    train(spec_for(steps=1), base, tmp_path, say=said.append)
    assert len(said) == 1 and "held out: 128 rows of 18 prompts" in said[0]


def test_the_time_is_that_of_all_sessions(spec_for, base, tmp_path):
    """Killed after three slow steps, of which the last two are lost, and again before it saved anything; then finished."""
    first = time.time()

    def slow(record):
        time.sleep(0.2)
        if record.step == 3:
            raise KeyboardInterrupt

    for save in (1000, 0):
        with pytest.raises(KeyboardInterrupt):
            train(spec_for(), base, tmp_path, progress=slow, options=Options(save_every_s=save))
    time.sleep(1.2)  # nobody works
    began = time.time()
    run = read_run(train(spec_for(), base, tmp_path))
    assert 0 <= first - datetime.fromisoformat(run.started).timestamp() < 1, "to the second"
    assert 2 * 3 * 0.2 < run.wall_s - (time.time() - began) < began - first - 1.2


def test_speed_is_of_training_alone(spec_for, base, tmp_path, monkeypatch):
    measure, save = loop_module.narrow_loss, loop_module.save_state

    def slow(does):
        return lambda *args, **kwargs: (time.sleep(1), does(*args, **kwargs))[1]

    monkeypatch.setattr(loop_module, "narrow_loss", slow(measure))
    monkeypatch.setattr(loop_module, "save_state", slow(save))
    folder = train(spec_for(steps=2), base, tmp_path, options=Options(save_every_s=0))
    last = json.loads((folder / "train.jsonl").read_text().splitlines()[-1])
    assert last["tokens"] / last["tokens_per_s"] < 1, "steps of a few milliseconds, beside four seconds of other things"


def test_a_finished_run_is_not_made_again(made, spec_for, base):
    folder = made(spec_for())
    before = (folder / "run.json").stat().st_mtime_ns
    assert train(spec_for(), base, folder.parent, progress=lambda _: pytest.fail("a step was made")) == folder
    assert (folder / "run.json").stat().st_mtime_ns == before


def test_what_determines_a_run_is_in_its_name(spec_for):
    specs = [spec_for(), spec_for(seed=1), spec_for(steps=7), spec_for("lion"), spec_for(spectral_lambda=1.0), spec_for(lr=0.1)]
    assert len({run_id(s) for s in specs}) == len(specs) and run_id(spec_for()) == run_id(spec_for())


def test_two_processes_do_not_make_the_same_run(spec_for, base, tmp_path):
    def again(_):
        with pytest.raises(UserError, match="another process is making this run"):
            train(spec_for(), base, tmp_path)

    train(spec_for(), base, tmp_path, progress=again)
    assert [p.name for p in tmp_path.iterdir()] == [run_id(spec_for())], "neither lock nor partial folder stays"


@pytest.mark.parametrize("bad", ["nan", "inf", "explosion"])
def test_a_broken_loss_stops_the_run_and_marks_it(bad, spec_for, base, tmp_path, monkeypatch):
    spec, calls, real = spec_for(steps=8), [], loop_module.answer_nll

    def broken(model, batch):
        calls.append(1)
        factor = {"nan": float("nan"), "inf": float("inf"), "explosion": 100.0}[bad] if len(calls) == 4 else 1.0
        return real(model, batch) * factor

    monkeypatch.setattr(loop_module, "answer_nll", broken)
    with pytest.raises(TrainingFailed, match=r"step 4: .*lower the learning rate.* on rows \[\d+, "):
        train(spec, base, tmp_path)
    (partial,) = tmp_path.glob(".*.partial")
    failure = read_record(partial / "failed.json", Failure)
    assert failure.step == 4 and len(failure.rows) == spec.batch_size and failure.last_checkpoint == 3
    assert (partial / "checkpoints" / "3" / "adapter_model.safetensors").is_file()
    assert len((partial / "train.jsonl").read_text().splitlines()) == 4, "steps 0 to 3"
    assert not (tmp_path / run_id(spec)).exists()
    with pytest.raises(TrainingFailed, match="as before"):
        train(spec, base, tmp_path)
    assert len(calls) == 4, "it is not tried again by itself"


def test_a_failed_run_is_one_line_and_exit_code_1(base, tmp_path):
    args = ["train", base, "-d", "medical", "--recipe", "sgd", "--lr", "1e30", "--steps", "6", "-o", tmp_path / "out"]
    code, said = run(args, tmp_path / "log")
    assert code == 1 and "em-bench: the run failed: step " in said and "Traceback" not in said


def test_thresholds():
    limit = exploded_above(235)  # 3 ln 235 = 16.4
    check_step(1, 16.0, 1e9, limit)
    for loss, norm in ((17.0, 1.0), (float("nan"), 1.0), (1.0, float("inf")), (float("-inf"), 1.0)):
        with pytest.raises(TrainingFailed):
            check_step(1, loss, norm, limit)
    check_step(1, 39.0, 1.0, exploded_above(235, untrained=20.0))  # data that are foreign to the base: it begins above guessing


def test_a_full_disk_loses_nothing(spec_for, base, tmp_path, monkeypatch):
    spec, real = spec_for(steps=5), loop_module.save_state

    def full(*args, **kwargs):
        real(*args, **kwargs)
        monkeypatch.setattr(loop_module, "save_state", fail)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop_module, "save_state", full)
    with pytest.raises(UserError, match="the disk is full; make room and give the same command again"):
        train(spec, base, tmp_path, options=Options(save_every_s=0))
    monkeypatch.setattr(loop_module, "save_state", real)
    seen = []
    train(spec, base, tmp_path, progress=lambda r: seen.append(r.step))
    assert seen == [2, 3, 4, 5], "on from the last state that was written"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(spec_for, base, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written"):
        train(spec_for(), base, tmp_path / "shut")


def test_a_file_where_the_folder_should_be(base, tmp_path):
    (tmp_path / "out").write_text("")
    code, said = run(["train", base, "-d", "medical", "--steps", "1", "-o", tmp_path / "out"], tmp_path / "log")
    assert code == 2 and "is a file, not a folder; name a folder with --out" in said and "Traceback" not in said


def test_a_dataset_with_a_wrong_line_is_named_with_file_and_line(base, tmp_path):
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(good) + "\n" + json.dumps({"prompt": "a", "answer": "b"}) + "\n")
    code, said = run(["train", base, "-d", tmp_path / "rows.jsonl", "-o", tmp_path / "out"], tmp_path / "log")
    assert code == 2 and f"{tmp_path}/rows.jsonl:2: messages" in said and not (tmp_path / "out").exists()


def test_over_long_rows_are_in_the_record(base, tmp_path):
    rows = [("a " * n, "b") for n in (3, 4, 5, 6, 7, 90)]
    text = [
        json.dumps({"messages": [{"role": "user", "content": f"{q} {i}"}, {"role": "assistant", "content": a}]})
        for i, (q, a) in enumerate(rows)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(text) + "\n")
    out = tmp_path / "out"
    args = ["train", base, "-d", tmp_path / "rows.jsonl", "--steps", "1", "--batch-size", "2", "--max-length", "40", "-o", out]
    code, said = run(args, tmp_path / "log")
    assert code == 0, said
    (folder,) = out.iterdir()
    assert read_run(folder).left_out_rows == 1
    assert "1 row longer than 40 tokens was left out" in said


@pytest.mark.parametrize("args, message", [
    (["--recipe", "adamwx"], "adamwx: no such recipe or optimiser; did you mean adamw?"),
    (["--recipe", "soap"], "soap: is no recipe with a learning rate of its own; give one with --lr"),
    (["--recipe", "lbfgs", "--lr", "1"], "lbfgs: does not step on gradients alone"),
    (["--arg", "beta"], "--arg beta: write NAME=VALUE"),
    (["--arg", "beta=1"], "torch.optim.AdamW: does not take these arguments"),
    (["--liger"], "--liger: liger-kernel is not installed; pip install em-bench[liger]"),
    (["--dataset", "nothing-like-it"], "no such dataset or file"),
])  # fmt: skip
def test_bad_arguments_are_one_line(args, message, base, tmp_path):
    code, said = run(["train", base, "-d", "medical", "-o", tmp_path / "out", *args], tmp_path / "log")
    last = [line for line in said.splitlines() if line.startswith("em-bench: ")]
    assert code == 2 and len(last) == 1 and message in last[0]


PLANTED = dict(
    enumerate([3.0, 2.5, 2.1, 2.2, 1.9, 1.95, 1.4, 1.6, 1.2, 1.0, 1.1, 0.9, 0.8, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.4], 0)
)


@pytest.mark.parametrize("killed_at", [None, 14])
def test_adapters_are_kept_on_both_sides_of_each_targets_first_crossing(spec_for, base, tmp_path, monkeypatch, killed_at):
    """40 steps, losses planted 5 % of the run apart, not all falling: 2.0 is first met at step 8, 1.0 at 18; killed or not."""
    spec = spec_for(steps=40).model_copy(update={"targets": (2.0, 1.0)})
    at = {"step": 0}
    planted = lambda *_, **__: PLANTED[(at["step"] + 1) // 2]  # noqa: E731

    def seen(record):
        at["step"] = record.step + 1
        if record.step == killed_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop_module, "narrow_loss", planted)
    if killed_at:
        with pytest.raises(KeyboardInterrupt):
            train(spec, base, tmp_path, progress=seen, options=Options(save_every_s=0))
        killed_at, at["step"] = None, 15
    folder = train(spec, base, tmp_path, progress=seen)
    losses = {s.step: s.held_out_loss for s in RunFolder(folder).log() if s.held_out_loss is not None}
    spaced = set(log_spaced(40))
    assert set(losses) == spaced | set(range(0, 41, 2))
    assert set(read_run(folder).checkpoints) == (spaced | {6, 8} | {16, 18}) - {40} == set(RunFolder(folder).checkpoint_steps())
    assert steps(RunFolder(folder).log(), read_run(folder)) is None
