"""submit and leaderboard through the real command line, with a really trained entry of the organism."""

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from helpers import synthetic_entries as synthetic
from helpers.packing import unpacked

from em_bench.board.board import Folders
from em_bench.board.packed import Packed
from em_bench.cli import main
from em_bench.data.models import base_ref
from em_bench.files import write_record
from em_bench.harness.evaluate import loss_on
from em_bench.harness.load_model import load_model

FILLED = {"authors": ["A. Author"], "description": "Made by a test."}
OWN = '''
import torch


def build(params, lr):
    """SGD with momentum, as code of one's own."""
    return torch.optim.SGD(params, lr=lr, momentum=0.9)
'''


class Ended(NamedTuple):
    stdout: str
    stderr: str


def em_bench(*args: str, cwd: Path, code: int = 0) -> Ended:
    """The command line, in this process: what it says, after checking the exit code."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    argv, sys.argv = sys.argv, ["em-bench", *map(str, args)]
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as e:
        ended = e.code or 0
    finally:
        os.chdir(before)
        sys.argv = argv
    assert ended == code, err.getvalue() + out.getvalue()
    return Ended(out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def entered(base, tmp_path_factory):
    """A leaderboard with one entry, code of its own, made by init and run as an author would."""
    top = tmp_path_factory.mktemp("entered")
    rules = synthetic.benchmark()
    tier = rules.tiers["organism"]
    model = tier.models[0].model_copy(update={"revision": base_ref(synthetic.MODEL, base).revision})
    begins = loss_on(load_model(base), "medical")()
    target = tier.targets[0].model_copy(update={"losses": (begins - 0.1, begins - 0.2), "untrained_loss": begins})
    # Well below the smaller loss: a rate that reaches both losses with one seed reaches them with the others, on any processor.
    rates = tier.rates.model_copy(update={"tolerance": -0.08})
    changed = {
        "models": (model,), "targets": (target,), "rates": rates, "steps": 6, "warmup_steps": 0, "witnesses": 1, "early_stop": 0.3
    }  # fmt: skip
    tier = tier.model_copy(update=changed)
    synthetic.leaderboard(top / "leaderboard", rules.model_copy(update={"tiers": {"organism": tier}}))
    em_bench("submit", "init", "mine", cwd=top)
    folder = top / "leaderboard" / "submissions" / "mine"
    said = yaml.safe_load((folder / "submission.yaml").read_text())
    said |= FILLED | {"optimizer": {"file": "optimiser.py"}, "learning_rate": 1e-2}
    (folder / "submission.yaml").write_text(yaml.safe_dump(said))
    (folder / "optimiser.py").write_text(OWN)
    em_bench("submit", "run", "mine", "--cores", "1", cwd=top)
    return top


def test_an_entry_of_ones_own_code_from_init_to_check(entered):
    folder = entered / "leaderboard" / "submissions" / "mine"
    manifest = json.loads((folder / "results" / "manifest.json").read_text())
    assert len(manifest["cells"]) == 3 and manifest["tuning"] and manifest["missing"] == {}
    packed = Packed(folder / "results")
    assert len({run_id for run_id, _ in packed.adapters.index}) == 1
    for cell in manifest["cells"]:
        asked = [packed.evaluation(name).score.capability for name in cell["evaluated"].values()]
        assert [0 < c["em_organism_knowledge/acc"] <= 1 for c in asked if c] == [True] and "6" in cell["evaluated"]
    checked = em_bench("submit", "check", "mine", cwd=entered)
    assert "0 failed, self-reported" in checked.stdout
    assert "FAIL" not in checked.stdout
    states = json.loads(em_bench("submit", "status", "--json", cwd=entered).stdout)
    assert [s["next"] for s in states] == ["em-bench submit check mine"]
    [checked] = json.loads(em_bench("submit", "status", "mine", "--json", cwd=entered).stdout)
    assert "checks pass" in checked["state"] and checked["next"] == "open a pull request with this folder"


def test_run_again_changes_nothing_of_the_results(entered):
    folder = entered / "leaderboard" / "submissions" / "mine" / "results"
    before = json.loads((folder / "manifest.json").read_text())
    em_bench("submit", "run", "mine", "--cores", "1", cwd=entered)
    assert json.loads((folder / "manifest.json").read_text())["files"] == before["files"]


@pytest.mark.slow
def test_a_library_entry_is_trained_again(entered, tmp_path):
    top = tmp_path / "leaderboard"
    shutil.copytree(entered / "leaderboard" / "benchmark", top / "benchmark")
    (top / "submissions").mkdir()  # without `mine`: after six steps all models still say the same
    em_bench("submit", "init", "plain", cwd=tmp_path)
    folder = top / "submissions" / "plain"
    said = yaml.safe_load((folder / "submission.yaml").read_text())
    said |= FILLED | {"optimizer": {"library": "torch.optim.NAdam"}, "learning_rate": 1e-3}
    (folder / "submission.yaml").write_text(yaml.safe_dump(said))
    em_bench("submit", "run", "plain", "--cores", "1", cwd=tmp_path)
    said = em_bench("leaderboard", "verify", "plain", "--rerun", "--cells", "1", cwd=tmp_path)
    assert said.stdout.count("capability at the smaller loss") == 2 and "OUTSIDE" not in said.stdout
    ledger = json.loads((top / "ledger" / "plain.json").read_text())
    numbers = [n for r in ledger["reruns"] for n in r["numbers"]]
    assert {(n["what"], n["at"]) for n in numbers} >= {
        ("loss", "log"), ("capability", "lower"), *(("misaligned", at) for at in ("upper", "lower", "end"))
    }  # fmt: skip
    assert all(n["within"] and n["recorded"] == n["found"] for n in numbers)  # the same machine: to the last digit
    assert "verified" in em_bench("submit", "check", "plain", cwd=tmp_path).stdout.splitlines()[-1]
    for path in (unpacked(folder) / "evaluations").glob("*/score.json"):
        score = json.loads(path.read_text())
        path.write_text(json.dumps(score | {"capability": score["capability"] and {"em_organism_knowledge/acc": 0.01}}))
    synthetic.reseal(folder)
    said = em_bench("leaderboard", "verify", "plain", "--rerun", "--cells", "1", cwd=tmp_path, code=1)
    # Other results draw other cells: their adapters are not in the entry, or what is trained again tells.
    told = "capability at the smaller loss 1.0 %" in said.stdout and "OUTSIDE tolerance" in said.stdout
    assert told or "FAIL  run.witnesses" in said.stdout


def test_own_code_is_not_run_by_maintainers(entered):
    said = em_bench("leaderboard", "verify", "mine", "--rerun", cwd=entered, code=2)
    assert "code of its own, which is not run here" in said.stderr


def test_changed_code_is_found(entered, tmp_path):
    shutil.copytree(entered / "leaderboard", tmp_path / "leaderboard")
    (tmp_path / "leaderboard" / "submissions" / "mine" / "optimiser.py").write_text(OWN.replace("0.9", "0.8"))
    said = em_bench("leaderboard", "verify", "mine", cwd=tmp_path, code=1)
    assert "optimiser.py has changed" in said.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import os\nos.system('touch OWNED')\n", "build"),
        ("def build(params, lr):\n    return None\n", "docstring"),
        ("def build(:", "not Python"),
        ("x = 1\n" * 20_000, "KiB"),
    ],
)
def test_code_of_another_form_is_refused_unread(board, text, says):
    from em_bench.board.verify import verify_entry

    path = board.submissions / "adamw" / "submission.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"optimizer": {"file": "optimiser.py"}}))
    (path.parent / "optimiser.py").write_text(text)
    first = verify_entry(path.parent, board.benchmarks).checks[0]
    assert not first.passed and says in first.detail
    assert not list(path.parent.rglob("OWNED")) and not Path("OWNED").exists()


@pytest.mark.parametrize("fields", ["authors", "description", "authors, description"])
def test_what_the_template_says_is_no_answer(board, tmp_path, fields):
    top = board.submissions.parent
    em_bench("submit", "init", "fresh", "--leaderboard", top, cwd=tmp_path)
    path = top / "submissions" / "fresh" / "submission.yaml"
    said = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(said | FILLED | {field: said[field] for field in fields.split(", ")}))
    refused = em_bench("submit", "run", "fresh", "--leaderboard", top, cwd=tmp_path, code=2).stderr
    assert f"{fields}: " in refused and "fill it in" in refused and refused.count("\n") == 1


def test_init_refuses_names_and_what_is_there(board, tmp_path):
    top = board.submissions.parent
    for name in ("Upper", "../x", "a", "x" * 60):
        assert "not a name" in em_bench("submit", "init", "--leaderboard", top, "--", name, cwd=tmp_path, code=2).stderr
    assert "is there already" in em_bench("submit", "init", "adamw", "--leaderboard", top, cwd=tmp_path, code=2).stderr
    assert list(tmp_path.iterdir()) == [top]


def test_a_tier_that_is_not_open_says_so(board):
    rules = synthetic.benchmark()
    tier = rules.tiers["organism"].model_copy(update={"targets": ()})
    write_record(board.benchmarks / "v2.json", rules.model_copy(update={"tiers": {"organism": tier}}))
    said = em_bench("submit", "run", "adamw", "--leaderboard", board.submissions.parent, cwd=board.submissions.parent, code=2)
    assert "not open" in said.stderr and said.stderr.count("\n") == 1
    shutil.rmtree(board.submissions / "adamw" / "results")
    checked = em_bench(
        "submit", "check", "adamw", "--leaderboard", board.submissions.parent, cwd=board.submissions.parent, code=2
    )
    assert checked.stderr == said.stderr


@pytest.mark.parametrize(
    ("optimizer", "says"),
    [
        ({"library": "torch.optim.NoSuch"}, "no such optimiser"),
        ({"library": "torch.optim.Optimizer"}, "torch.optim.Optimizer"),
        ({"library": "torch.optim.LBFGS"}, "closure"),
        ({"library": "no_such_name"}, "no such optimiser"),
        ({"library": "torch.optim.AdamW", "kwargs": {"lr": 5.0}}, "lr"),
        ({"library": "torch.optim.AdamW", "kwargs": {"nope": 1}}, "nope"),
        ({"file": "optimiser.py"}, "optimiser"),
    ],
)
def test_an_optimiser_that_cannot_train_is_refused_before_anything_runs(board, tmp_path, optimizer, says):
    folder = board.submissions / "adamw"
    said = yaml.safe_load((folder / "submission.yaml").read_text()) | {"optimizer": optimizer}
    (folder / "submission.yaml").write_text(yaml.safe_dump(said))
    if "file" in optimizer:
        (folder / "optimiser.py").write_text('def build(params, lr):\n    """Nothing."""\n    return None\n')
    before = (folder / "results" / "manifest.json").read_bytes()
    said = em_bench(
        "submit", "run", "adamw", "--leaderboard", board.submissions.parent, "-w", tmp_path / "w", cwd=tmp_path, code=2
    )
    assert says in said.stderr and said.stderr.count("\n") == 1
    assert (folder / "results" / "manifest.json").read_bytes() == before and not (tmp_path / "w" / "jobs").exists()
    if "file" in optimizer:
        return  # neither of the next two runs an entry's own code
    shutil.rmtree(folder / "results")
    checked = em_bench("submit", "check", "adamw", "--leaderboard", board.submissions.parent, cwd=tmp_path, code=2)
    assert checked.stderr == said.stderr and checked.stdout == ""
    status = em_bench("submit", "status", "adamw", "--leaderboard", board.submissions.parent, "--json", cwd=tmp_path)
    [row] = json.loads(status.stdout)
    assert row["state"] == "not valid" and says in row["next"]


def test_verify_build_check_and_challenge(board):
    top = board.submissions.parent
    said = em_bench("leaderboard", "verify", "--leaderboard", top, "--json", cwd=top)
    assert {e["entry"] for e in json.loads(said.stdout)} == {"adamw", "better", "lazy"}
    em_bench("leaderboard", "build", "--leaderboard", top, cwd=top)
    assert (top / "site" / "index.html").is_file()
    assert "the same (numbers to 1e-9)" in em_bench("leaderboard", "build", "--check", "--leaderboard", top, cwd=top).stdout
    em_bench("leaderboard", "challenge", "better", "--reason", "too good", "--leaderboard", top, cwd=top)
    said = em_bench("leaderboard", "build", "--check", "--leaderboard", top, cwd=top, code=1)
    assert "differs in better" in said.stderr
    em_bench("leaderboard", "build", "--leaderboard", top, cwd=top)
    assert "too good" in (top / "site" / "entries" / "better.html").read_text()
    em_bench("leaderboard", "challenge", "better", "--answer", "it is so", "--leaderboard", top, cwd=top)
    said = em_bench("leaderboard", "challenge", "better", "--answer", "again", "--leaderboard", top, cwd=top, code=2)
    assert "no open challenge" in said.stderr


@pytest.mark.parametrize("name", ["../../etc/passwd", "nobody", "-x"])
def test_challenges_of_nobody_write_nothing(board, name):
    top = board.submissions.parent
    before = sorted(top.rglob("*"))
    em_bench("leaderboard", "challenge", "--leaderboard", top, "--reason", "x", "--", name, cwd=top, code=2)
    assert sorted(top.rglob("*")) == before
    assert Folders.at(top).names() == ["adamw", "better", "lazy"]
