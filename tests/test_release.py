"""What a release hands out: the wheel and the sdist hold what is needed, one version everywhere, files for people and forges that parse."""

import email
import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from em_bench import __version__

ROOT = Path(__file__).parents[1]
SHIPPED = ("tasks", "baselines", "leaderboard/benchmark", "leaderboard/submissions/adamw")
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
    assert others and not names & others
    assert tracked() - others - names <= {".gitattributes"}


def test_the_wheel_holds_the_code_and_its_data_and_nothing_else(built):
    _, wheel = built
    names = {n for n in wheel.namelist() if ".dist-info/" not in n}
    assert names == tracked("em_bench") | {f"em_bench/assets/{p}" for p in tracked(*SHIPPED)}
    assert "em_bench/py.typed" in names


def test_the_wheel_says_what_it_is(built):
    _, wheel = built
    [info] = {n.split("/")[0] for n in wheel.namelist() if ".dist-info/" in n}
    said = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert (said["Name"], said["Version"], said["License-Expression"]) == ("em-bench", __version__, "MIT")
    entry_points = wheel.read(f"{info}/entry_points.txt").decode()
    assert "em-bench = em_bench.cli:main" in entry_points and "em_bench = em_bench.harness.inspect.registry" in entry_points
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


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
