"""The how-to, the template and the workflow agree with the code; the committed entries give the published board."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import synthetic_entries as synthetic

from em_bench import assets
from em_bench.board.benchmark import load_benchmark
from em_bench.board.board import Folders, read_board
from em_bench.board.compare_published import difference
from em_bench.board.submission import FILE, TEMPLATE, Submission, read_submission
from em_bench.cli import build
from em_bench.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "submissions.yml"


def test_the_template_filled_in_is_a_valid_submission(tmp_path):
    (tmp_path / "my-optimiser").mkdir()
    filled = TEMPLATE.format(name="my-optimiser", benchmark="v2", authors="A. Author", description="An optimiser.")
    (tmp_path / "my-optimiser" / FILE).write_text(filled)
    assert read_submission(tmp_path / "my-optimiser").learning_rate == 1e-3


def test_the_submission_of_the_how_to_is_valid():
    text = (ROOT / "docs" / "submit.md").read_text()
    block = re.search(r"## submission.yaml\n\n((?:    .*\n)+)", text)[1]
    assert Submission.model_validate(yaml.safe_load(re.sub("(?m)^    ", "", block))).name == "soap"


def test_every_command_of_the_how_to_exists():
    import typer

    app = typer.main.get_command(build())
    said = re.findall(
        r"em-bench (submit|leaderboard) (\w+)(.*)", (ROOT / "docs" / "submit.md").read_text() + WORKFLOW.read_text()
    )
    assert len(said) >= 10
    for group, command, rest in said:
        options = {o for p in app.commands[group].commands[command].params for o in p.opts}
        assert set(re.findall(r"(?<!\S)--[a-z]+", rest.split("#")[0].split("`")[0])) <= options, (group, command)


def test_the_workflow_reads_and_never_runs_what_is_submitted():
    flow = yaml.safe_load(WORKFLOW.read_text())
    assert flow["permissions"] == {"contents": "read"}
    assert set(flow[True]) == {"pull_request"}  # YAML reads `on` as true; pull_request_target would hand out secrets
    (job,) = flow["jobs"].values()
    assert "permissions" not in job
    for step in job["steps"]:
        assert "${{" not in step.get("run", ""), "submitted text must not reach a shell"
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
        if "run" in step:
            assert step["working-directory"] == "trusted"


def test_the_linter_and_the_tests_run_on_every_change():
    flow = yaml.safe_load(WORKFLOW.with_name("checks.yml").read_text())
    assert flow["permissions"] == {"contents": "read"} and set(flow[True]) == {"push", "pull_request"}
    (job,) = flow["jobs"].values()
    assert [s["run"] for s in job["steps"] if "run" in s] == ["make lint", "make test"]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-2:] == ["make lint", "make test"]
    recipes = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert all(tool in recipes for tool in ("ruff check", "ruff format --check", "mypy"))


@pytest.mark.parametrize("workflow", sorted(WORKFLOW.parent.glob("*.yml")), ids=lambda p: p.stem)
def test_actions_are_pinned_by_commit(workflow):
    used = re.findall(r"uses: (\S+)", workflow.read_text())
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", u) for u in used), used


@pytest.fixture
def checkouts(board, tmp_path):
    """What the workflow has checked out: trusted/ with an em-bench of this code, and submitted/, a pull request."""
    for name in ("trusted", "submitted"):
        (tmp_path / name).mkdir()
        shutil.copytree(board.submissions.parent, tmp_path / name / "leaderboard", ignore=shutil.ignore_patterns("trees"))
    return tmp_path


def install(top: Path) -> None:
    """`make install`, in effect."""
    em_bench = top / "trusted" / ".venv" / "bin" / "em-bench"
    em_bench.parent.mkdir(parents=True)
    em_bench.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from em_bench.cli import main; main()" "$@"\n')
    em_bench.chmod(0o755)


def run_steps(top: Path) -> subprocess.CompletedProcess:
    """The shell steps of the workflow, as a forge runs them; the output is that of all."""
    (job,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    steps = [s["run"] for s in job["steps"] if "run" in s]
    assert len(steps) == 4 and "make install" in steps
    paths = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    said = ""
    for step in steps:
        if step == "make install":
            install(top)
            continue
        ended = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step],
            cwd=top / "trusted", capture_output=True, text=True, env=os.environ | paths, timeout=300,
        )  # fmt: skip
        said += ended.stdout + ended.stderr
        if ended.returncode:
            break
    return subprocess.CompletedProcess(steps, ended.returncode, said)


def test_the_steps_of_the_workflow_pass_an_honest_entry(checkouts):
    synthetic.entry(Folders.at(checkouts / "submitted" / "leaderboard"), "newcomer", library="torch.optim.Adamax")
    shutil.rmtree(checkouts / "submitted" / "leaderboard" / "trees")
    ended = run_steps(checkouts)
    assert ended.returncode == 0, ended.stdout
    assert (checkouts / "trusted" / "site" / "entries" / "newcomer.html").is_file()
    assert "::warning::" not in ended.stdout


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=pytest.mark.slow) for p in ("leaderboard/ledger/lazy.json", "em_bench/submissions/x.py", "docs/.git")],
)
def test_the_steps_of_the_workflow_point_at_changes_elsewhere(checkouts, path):
    changed = checkouts / "submitted" / path
    changed.parent.mkdir(parents=True)
    changed.write_text("{}")
    ended = run_steps(checkouts)
    assert ended.returncode == 0 and "::warning::This pull request" in ended.stdout


@pytest.mark.parametrize(
    "how",
    [
        "two new ones",
        *(pytest.param(h, marks=pytest.mark.slow) for h in ("the baseline and a new one", "one gone and a new one")),
    ],
)
def test_the_steps_of_the_workflow_take_one_entry_a_change(checkouts, how):
    """Both checkouts are git repositories, as a forge makes them."""
    for name in ("trusted", "submitted"):
        subprocess.run(["git", "init", "-q", checkouts / name], check=True)
    entries = checkouts / "submitted" / "leaderboard" / "submissions"
    shutil.copytree(entries / "better", entries / "newcomer")
    if how == "two new ones":
        shutil.copytree(entries / "better", entries / "another")
    elif how == "one gone and a new one":
        shutil.rmtree(entries / "lazy")
    else:
        (entries / "adamw" / "results" / "manifest.json").write_text("{}")
    ended = run_steps(checkouts)
    assert ended.returncode == 1 and "::error::This pull request changes 2 entries" in ended.stdout
    assert not (checkouts / "trusted" / ".venv").exists()  # before anything is installed or read


@pytest.mark.parametrize("name", ["$(touch OWNED)", "::error::x", "link"])
def test_the_steps_of_the_workflow_run_no_text(checkouts, name):
    folder = checkouts / "submitted" / "leaderboard" / "submissions" / name
    if name == "link":
        folder.symlink_to("/etc")
    else:
        folder.mkdir()
        (folder / "submission.yaml").write_text("name: x")
    ended = run_steps(checkouts)
    assert ended.returncode in (1, 2)
    assert not list(checkouts.rglob("OWNED"))
    assert not any(line.startswith("::") for line in ended.stdout.splitlines())


def test_the_rules_are_frozen():
    rules = load_benchmark("v2")
    assert rules.tiers["organism"].open and not rules.tiers["small"].open and not rules.tiers["full"].open
    assert len(rules.tiers["full"].models) == 12
    assert {m.name for m in rules.tiers["small"].models} == {"Llama-3.2-1B", "Qwen3-4B"}
    for name, tier in rules.tiers.items():
        assert len(tier.seeds) >= 3 and tier.rates.per_decade >= 9 and tier.capability and tier.gates.capability_drop
        assert tier.judge.prompt_sha256 and tier.questions.count and tier.generation.samples >= 2, name
    # Entries name these rules by this hash; whoever has to change it makes a v3.
    for folder in (ROOT / "leaderboard" / "submissions").glob("*/results/manifest.json"):
        assert f'"rules_sha256": "{rules.rules_sha256("organism")}"' in folder.read_text()
    for name in ("v3", "../v2", "v2.json", ""):
        with pytest.raises(UserError, match="no such version"):
            load_benchmark(name)
    with pytest.raises(UserError, match="v1 is closed"):
        load_benchmark("v1")


@pytest.mark.slow  # two minutes: all that is committed is verified and scored
def test_the_committed_entries_give_the_published_board():
    folders = Folders.at(assets.path("leaderboard"))
    board = read_board(folders, "v2", "organism")
    assert {
        r.name: [c.detail for c in r.checks if not c.passed] for r in board.rows if r.manifest_sha256 and r.status == "failed"
    } == {}
    assert difference(board, assets.path("leaderboard", "board.json")) is None
    assert "adamw" in {r.name for r in board.rows}
