"""`em-bench reproduce` end to end with the real organism: results, a second run, a changed recipe, a failure, --fresh."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml
from helpers.secrets import KEYS, found_in
from helpers.sweeps import MINI, command, preset_file, reproduce

from em_bench.records import Results


def runs(work: Path) -> dict[str, int]:
    """run id -> when its record was written."""
    return {p.parent.name: p.stat().st_mtime_ns for p in work.glob("runs/*/run.json")}


@pytest.fixture(scope="module")
def swept(base, tmp_path_factory) -> tuple[Path, Path, subprocess.CompletedProcess]:
    """A finished sweep: its preset file, its work folder, and how it ended."""
    folder = tmp_path_factory.mktemp("sweep")
    preset, work = preset_file(folder), folder / "work"
    with pytest.MonkeyPatch.context() as surroundings:
        for name, key in KEYS.items():
            surroundings.setenv(name, key)
        return preset, work, reproduce(preset, work, "--json")


def test_no_key_of_the_surroundings_is_in_any_file_or_line(swept):
    _, work, ended = swept
    assert {"results.json", "index.html", "train.jsonl", "responses.jsonl", "log.txt"} <= {p.name for p in work.rglob("*")}
    assert found_in(work, ended.stdout, ended.stderr) == []


def test_results_hold_every_cell(swept):
    _, work, ended = swept
    results = Results.model_validate_json(ended.stdout)
    assert results == Results.model_validate_json((work / "results.json").read_text())
    assert {(c.recipe, c.dataset, c.spectral_lambda) for c in results.cells} >= {
        (None, None, None),
        *((r, d, 0.0) for r in ("adamw", "sgd") for d in ("medical", "code")),
    }
    assert {(c.kind, c.recipe) for c in results.choices} == {
        ("learning_rate", "adamw"),
        ("spectral_lambda", "adamw"),
        ("spectral_lambda", "sgd"),
    }
    for cell in results.cells:
        assert sum(cell.score.overall.counts.values()) == sum(sum(q.counts.values()) for q in cell.questions) == 162
        if cell.recipe:
            run = json.loads((work / "runs" / cell.run_id / "run.json").read_text())
            assert run["narrow_loss"] == cell.narrow_loss == cell.trajectory[-1].narrow_loss
            assert run["spec"]["recipe"]["learning_rate"] == cell.learning_rate
            assert cell.spectrum.mean[0] == 1.0


def test_checkpoints_are_asked_too(swept):
    """Each cell at every log-spaced step at which its adapter has moved; the loss is the one that training logged."""
    _, work, _ = swept
    results = Results.model_validate_json((work / "results.json").read_text())
    for cell in (c for c in results.cells if c.recipe):
        moved = {p.step: p.narrow_loss for p in cell.trajectory if p.spectral and p.spectral.layers and p.step < cell.steps}
        earlier = {c.step: c for c in results.checkpoints if c.run_id == cell.run_id}
        assert moved and {s: c.narrow_loss for s, c in earlier.items()} == moved
        assert all(c.adapter_sha256 != cell.adapter_sha256 for c in earlier.values())


def test_the_choice_is_the_best_of_the_recorded_losses(swept):
    _, work, _ = swept
    results = Results.model_validate_json((work / "results.json").read_text())
    choice = next(c for c in results.choices if c.kind == "learning_rate")
    means = {}
    for rate in (1e-3, 3e-3):
        found = [json.loads(p.read_text()) for p in work.glob("runs/*.adamw.*/run.json")]
        losses = [
            r["narrow_loss"] for r in found if r["spec"]["recipe"]["learning_rate"] == rate and r["spec"]["spectral_lambda"] == 0
        ]
        assert len(losses) == 2
        means[rate] = sum(losses) / 2
    assert choice.losses == pytest.approx({f"{r:g}": v for r, v in means.items()})
    assert choice.chosen == min(means, key=means.get)


def test_a_second_run_does_nothing_and_says_the_same(swept):
    preset, work, first = swept
    before = {p: p.stat().st_mtime_ns for p in work.rglob("*") if p.is_file() and p.name not in (".lock", "plan.json")}
    again = reproduce(preset, work, "--json")
    assert again.stdout == first.stdout
    assert before == {p: p.stat().st_mtime_ns for p in work.rglob("*") if p.is_file() and p.name not in (".lock", "plan.json")}
    table = reproduce(preset, work).stdout
    assert "End of training" in table and "index.html" in table and "partial" not in table


@pytest.mark.slow  # a minute and a half: two sweeps more
def test_one_changed_recipe_and_one_that_fails(swept):
    """The grid of adamw changes and sgd diverges: sgd is named, adamw is trained, nothing else is."""
    preset, work, _ = swept
    before = runs(work)
    changed = preset_file(preset.parent, learning_rates={"adamw": [1e-3, 5e-3], "sgd": [1e30]})
    ended = reproduce(changed, work, code=1)
    assert f"preset mini is another than the one that {work}/results.json is of" in ended.stderr
    assert "failed: evaluate-organism-qwen3-sgd" in ended.stderr
    assert f"em-bench reproduce --preset {changed} --workdir {work}" in ended.stderr
    assert "partial" in ended.stdout and "adamw" in ended.stdout and "sgd" not in ended.stdout
    after = runs(work)
    assert before.items() <= after.items()
    assert all(".adamw." in run for run in after.keys() - before.keys())
    partial = Results.model_validate_json((work / "results.json").read_text())
    assert len(partial.missing) == 4 and all(" sgd " in name for name in partial.missing)
    back = reproduce(preset_file(preset.parent), work, "--json")  # what was made under the old preset is still there
    assert runs(work) == after
    assert Results.model_validate_json(back.stdout).missing == []


def test_another_preset_does_not_replace_results(swept):
    preset, work, _ = swept
    before = {p: p.stat().st_mtime_ns for p in work.rglob("*") if p.is_file() and p.name != ".lock"}
    other = preset.with_name("other.yaml")
    other.write_text(yaml.safe_dump(MINI | {"name": "other"}))
    ended = reproduce(other, work, code=2)
    assert f"{work}: holds the work of preset mini" in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert "--workdir" in ended.stderr and "--fresh" in ended.stderr
    assert before == {p: p.stat().st_mtime_ns for p in work.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.slow
def test_killed_while_training_and_run_again(base, tmp_path):
    """kill -9 of the controller at its third run: no process is left, and the runs that were complete stay as they are."""
    preset, work = (
        preset_file(tmp_path, base=False, recipes=["adamw"], learning_rates={"adamw": [1e-3, 3e-3]}, steps=12),
        tmp_path / "work",
    )
    controller = subprocess.Popen(command(preset, work), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(runs(work)) < 2:
        assert time.monotonic() < deadline and controller.poll() is None
        time.sleep(0.02)
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()
    while left := [p for p in psutil.process_iter() if works_in(p, work)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    before = runs(work)
    assert 2 <= len(before) < 6
    reproduce(preset, work)
    assert before.items() <= runs(work).items() and len(runs(work)) == 6
    reproduce(preset, work, "--fresh", "--json")
    assert not before.items() & runs(work).items()


def works_in(process: psutil.Process, work: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == work
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def test_fresh_does_not_empty_a_stranger_s_folder(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    ended = reproduce(preset_file(tmp_path), tmp_path, "--fresh", code=2)
    assert "not a work folder" in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.slow  # the judge is asked for about a minute before it is given up
def test_a_judge_that_is_down_fails_its_job_by_name(base, tmp_path):
    """Retried once, then named with its last words and the command; what was answered is not asked again when the judge is back."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        judge = f"openai:absent,base_url=http://127.0.0.1:{unused.getsockname()[1]}/v1"
        job = "evaluate-base-organism-qwen3"
        ended = reproduce(preset_file(tmp_path), tmp_path / "work", "--judge", judge, "--only", job, code=1)
    assert f"failed: {job}: judge absent at " in ended.stderr and f"--only {job}" in ended.stderr
    assert "partial" in ended.stdout
    assert (tmp_path / "work" / "snakemake.log").read_text().count("Trying to restart job") == 1
    assert len(list(tmp_path.glob("work/evaluations/*/responses.jsonl"))) == 1
