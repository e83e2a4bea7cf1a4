"""`em-bench runs`, trackers and figures."""

import json
import re

import pytest
from helpers.commands import kill_at, run, start
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.training.list_runs import list_runs


def test_every_kind_of_run_is_listed(base, tmp_path):
    out = tmp_path / "runs"
    args = ["train", base, "-d", "medical", "--batch-size", "4", "--out", out, "--steps"]
    assert run([*args, "3"], tmp_path / "log")[0] == 0
    assert run([*args, "6", "--recipe", "sgd", "--lr", "1e30"], tmp_path / "log")[0] == 1
    victim = start([*args, "400"], tmp_path / "log")
    log = next(
        iter(
            _wait(
                lambda: [
                    p for p in out.glob(".*.partial/train.jsonl") if not (p.parent / "failed.json").exists() and p.stat().st_size
                ]
            )
        )
    )
    assert next(r for r in list_runs(out) if r.folder == str(log.parent)).status == "running"
    kill_at([victim], out, 3)
    listed = {r["status"]: r for r in json.loads(CliRunner().invoke(build(), ["runs", str(out), "--json"]).stdout)}
    assert listed.keys() == {"done", "failed", "interrupted"}
    assert listed["done"]["step"] == 3 and listed["done"]["narrow_loss"] > 0
    assert "lower the learning rate" in listed["failed"]["problem"]
    table = CliRunner().invoke(build(), ["runs", str(out)]).stdout
    assert all(word in table for word in ("done", "failed", "interrupted", "3/3", "lower the learning rate"))


def _wait(condition):
    import time

    for _ in range(6000):
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError("waited in vain")


def test_no_folder(tmp_path):
    done = CliRunner().invoke(build(), ["runs", str(tmp_path / "nothing")])
    assert "no such folder; name the one that" in str(done.exception)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_figures(made, spec_for, tmp_path, kind):
    folder = made(spec_for())
    done = CliRunner().invoke(build(), ["runs", str(folder), "--plot", str(tmp_path / f"run.{kind}")])
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / f"run.{kind}")
    start = (tmp_path / f"run.{kind}").read_bytes()[:300]
    assert (b"<svg" in start or b"DOCTYPE svg" in start) if kind == "svg" else start.startswith(b"\x89PNG")
    bad = CliRunner().invoke(build(), ["runs", str(folder), "--plot", str(tmp_path / "run.txt")])
    assert "ends in neither .svg nor .png" in str(bad.exception) and not (tmp_path / "run.txt").exists()


def test_tensorboard_holds_every_step(base, tmp_path):
    args = [
        "train",
        base,
        "-d",
        "medical",
        "--steps",
        "4",
        "--batch-size",
        "4",
        "--out",
        tmp_path / "out",
        "--track",
        "tensorboard",
    ]
    code, said = run(args, tmp_path / "log")
    assert code == 0, said
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = sorted((tmp_path / "out").glob("*/trackers/**/events.out.tfevents.*"), key=lambda p: len(p.parts))
    seen = EventAccumulator(str(files[0]))  # the deeper ones hold the hyper-parameters
    seen.Reload()
    (log,) = (tmp_path / "out").glob("*/train.jsonl")
    losses = [json.loads(line)["loss"] for line in log.read_text().splitlines()][1:]
    assert [e.value for e in seen.Scalars("loss")] == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize(
    "name, message", [("nothing", "no such tracker; name one of"), ("aim", "is not installed; pip install aim")]
)
def test_trackers_that_are_not_there(base, tmp_path, name, message):
    code, said = run(
        ["train", base, "-d", "medical", "--steps", "1", "--out", tmp_path / "out", "--track", name], tmp_path / "log"
    )
    assert code == 2 and re.search(f"em-bench: --track {name}: {message}", said)
