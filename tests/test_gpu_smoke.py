"""`make gpu-smoke`, on the CPU here: what it finds, and that what fails or lacks something is a row and no end of the others."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SMOKE = Path(__file__).parents[1] / "benchmarks" / "gpu_smoke.py"


@pytest.fixture
def smoke():
    spec = importlib.util.spec_from_file_location("gpu_smoke", SMOKE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_check_that_fails_or_cannot_run_is_a_row(smoke, tmp_path, monkeypatch, capsys):
    def fails(box):
        assert box.root.is_dir()
        box.em("train", "nosuch", "--dataset", "medical")

    def lacks(box):
        raise smoke.Skip("a second GPU")

    monkeypatch.setattr(smoke, "CHECKS", {"fails": fails, "lacks": lacks, "runs": lambda box: {"nats": 0.5}})
    monkeypatch.setattr(sys, "argv", ["gpu_smoke", "--only", "fails", "lacks", "runs", "--out", str(tmp_path / "gpu")])
    with pytest.raises(SystemExit) as ended:
        smoke.main()
    (record,) = (tmp_path / "gpu").iterdir()
    found = json.loads(record.read_text())
    rows = {name: (c["stands"], next(iter(c["found"].values()))) for name, c in found["checks"].items()}
    assert rows["lacks"] == ("skipped", "a second GPU") and rows["runs"] == ("fine", 0.5)
    assert rows["fails"][0] == "failed" and "exit status 2" in rows["fails"][1] and "nosuch" in rows["fails"][1]
    assert ended.value.code == 1 and found["machine"]["cpu"] and "failed" in capsys.readouterr().out


def test_two_runs_that_differ_are_told(smoke):
    class Run:
        def __init__(self, loss):
            self.last = type("Last", (), {"held_out_loss": loss})

        def log(self):
            return [self.last]

    assert smoke.apart(Run(1.0), Run(1.01)) == pytest.approx(0.01)
    with pytest.raises(AssertionError, match=r"1\.0000 and 1\.1000"):
        smoke.apart(Run(1.0), Run(1.1))


@pytest.mark.slow
def test_the_smallest_real_things_run_on_a_cpu(tmp_path):
    checks = ["doctor", "recipes", "families", "repeat", "resume", "evaluate", "all-gpus", "sweep"]
    done = subprocess.run([sys.executable, SMOKE, "--only", *checks, "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "cpu.json").read_text())["checks"]
    assert {name: c["stands"] for name, c in found.items()} == dict.fromkeys(checks, "fine")
    assert found["evaluate"]["found"] == {"same": 24, "of": 24} and set(found["recipes"]["found"].values()) == {0.0}, (
        "the CPU's twice"
    )
