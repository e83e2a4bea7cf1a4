"""What a release hands out: the wheel and the sdist hold what is needed, one version everywhere, files for people and forges that parse."""

import email
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from em_bench import RELEASED, __version__

ROOT = Path(__file__).parents[1]
SHIPPED = ("tasks", "baselines", "docs/measure.md", "leaderboard/benchmark", "leaderboard/submissions/adamw")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def tracked(*places: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z", "--", *places], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {p for p in listed.split("\0") if p and (ROOT / p).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(names in the sdist, the wheel made from that sdist alone)."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("no hatchling: make install")
    top = tmp_path_factory.mktemp("release")

    def build(target: str, source: Path) -> Path:
        call = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(top / target)]
        ended = subprocess.run(call, cwd=source, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        [made] = (top / target).iterdir()
        return made

    with tarfile.open(build("sdist", ROOT)) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
        archive.extractall(top / "unpacked", filter="data")
    [source] = (top / "unpacked").iterdir()
    with zipfile.ZipFile(build("wheel", source)) as wheel:
        yield names, wheel


def test_the_sdist_holds_what_is_tracked_but_other_entries(built):
    names, _ = built
    others = {p for p in tracked("leaderboard/submissions") if not p.startswith("leaderboard/submissions/adamw/")}
    assert not names & others
    assert tracked() - others - names <= {".gitattributes"}


def test_the_wheel_holds_the_code_and_its_data_and_nothing_else(built):
    _, wheel = built
    names = {n for n in wheel.namelist() if ".dist-info/" not in n}
    assert names == tracked("em_bench") | {f"em_bench/assets/{p}" for p in tracked(*SHIPPED, ":!baselines/results")}
    assert "em_bench/py.typed" in names


def test_the_wheel_says_what_it_is(built):
    _, wheel = built
    [info] = {n.split("/")[0] for n in wheel.namelist() if ".dist-info/" in n}
    said = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert (said["Name"], said["Version"], said["License-Expression"]) == ("em-bench", __version__, "MIT")
    entry_points = wheel.read(f"{info}/entry_points.txt").decode()
    assert "em-bench = em_bench.cli:main" in entry_points and "em_bench = em_bench.harness.inspect.registry" in entry_points
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


# What each command does in an empty folder, in one process whose em_bench is the unpacked wheel alone.
WITHOUT_A_CHECKOUT = [
    ["models"], ["data", "list"], ["data", "publish", "money", "--to", "money"], ["plan"], ["submit", "init", "mine"], ["submit", "status"],
]  # fmt: skip
TRY = """
import json, sys
import em_bench, typer
from em_bench.cli import build, main
assert em_bench.__file__.startswith(sys.argv[1]), em_bench.__file__
def all_of(command, path=()):
    yield list(path)
    for name, inner in getattr(command, "commands", {}).items():
        yield from all_of(inner, (*path, name))
asked = [[*path, "--help"] for path in all_of(typer.main.get_command(build())) if path not in ([], ["lm-eval"])]
for call in asked + json.loads(sys.argv[2]):
    sys.argv = ["em-bench", *call]
    try:
        main()
    except SystemExit as e:
        assert not e.code, (call, e.code)
print(f"{len(asked)} commands")
"""


def test_every_command_works_from_the_wheel_in_an_empty_folder(built, tmp_path):
    _, wheel = built
    wheel.extractall(tmp_path / "installed")
    (tmp_path / "empty").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EM_BENCH", "PYTEST"))}
    environment |= {
        "PYTHONPATH": str(tmp_path / "installed"),
        "PYTHONSAFEPATH": "1",
        "HF_HUB_OFFLINE": "1",
        "EM_BENCH_CACHE": str(tmp_path),
    }
    call = [sys.executable, "-c", TRY, str(tmp_path / "installed"), json.dumps(WITHOUT_A_CHECKOUT)]
    ended = subprocess.run(call, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert int(re.search(r"^(\d+) commands$", ended.stdout, re.MULTILINE)[1]) > 35
    assert {p.name for p in (tmp_path / "empty").iterdir()} == {"money", "leaderboard"}


def test_classifiers_are_known_ones():
    known = pytest.importorskip("trove_classifiers", reason="no hatchling: make install").classifiers
    assert PROJECT["classifiers"] and set(PROJECT["classifiers"]) <= known


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text("utf-8"))
    assert PROJECT["dynamic"] == ["version"]  # hatch reads em_bench.__version__
    assert citation["version"] == zenodo["version"] == __version__
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", __version__]
    assert (
        f"## {__version__} ({RELEASED})" in (ROOT / "CHANGELOG.md").read_text("utf-8") and citation["date-released"] == RELEASED
    )


def test_the_citation_has_what_its_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software" and citation["license"] == PROJECT["license"]
    assert (
        [a["name"] for a in citation["authors"]]
        == [c["name"] for c in zenodo["creators"]]
        == [a["name"] for a in PROJECT["authors"]]
    )
    assert citation["title"] == zenodo["title"]


@pytest.mark.parametrize("form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda p: p.stem)
def test_issue_forms_are_forms(form):
    read = yaml.safe_load(form.read_text("utf-8"))
    assert read["name"] and read["description"] and read["body"]
    assert {part["type"] for part in read["body"]} <= {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    assert all(part["attributes"]["label"] for part in read["body"])


def test_what_people_look_for_is_there_and_its_links_lead_somewhere():
    pages = [ROOT / n for n in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md")] + sorted(
        (ROOT / "docs").glob("*.md")
    )
    for page in pages:
        targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        gone = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
        assert not gone, f"{page.name}: {gone}"


def test_hooks_are_the_linters_of_make_lint():
    [repo] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    lint = (ROOT / "Makefile").read_text("utf-8").split("\nlint:")[1].split("\n\n")[0]
    assert repo["repo"] == "local" and {h["entry"].split()[0].split("/")[-1] for h in repo["hooks"]} == {"ruff", "mypy"}
    assert all(tool in lint for tool in ("ruff check", "ruff format", "mypy"))


def test_the_container_takes_what_make_installs():
    """No builder is here; what its file names is there, and torch is the lock's."""
    said = (ROOT / "Dockerfile").read_text("utf-8")
    assert set(re.findall(r"torch==([\d.]+)", said)) == set(
        re.findall(r"^torch==([\d.]+)", (ROOT / "requirements" / "torch.lock").read_text("utf-8"), re.MULTILINE)
    )
    assert all((ROOT / name).is_file() for name in re.findall(r" -[cr] (\S+)", said))
    left_out = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert not [p for p in SHIPPED if any(p == q or p.startswith(f"{q}/") for q in left_out) and f"!{p}" not in left_out]
