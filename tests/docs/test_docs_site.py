"""The documentation site's own parts: every command and every page is in it, and a link that leads nowhere is found."""

import importlib.util
import re
from pathlib import Path

import pytest
import typer

from em_bench import cli

SITE = Path(__file__).parents[2] / "docs" / "site"


def module(name: str):
    spec = importlib.util.spec_from_file_location(f"docs_site_{name}", SITE / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def pages():
    return module("pages")


def test_every_how_to_is_a_page(pages):
    """But for the plans of the boards and reports, which are made."""
    listed = set(pages.written())
    assert {p.relative_to(pages.ROOT).as_posix() for p in (pages.ROOT / "docs").glob("*.md")} <= listed
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"} <= listed


def test_every_command_and_option_is_in_the_reference(pages):
    said = pages.command_line()

    def walk(command, words):
        for name, inner in getattr(command, "commands", {}).items():
            yield (*words, name), inner
            yield from walk(inner, (*words, name))

    found = list(walk(typer.main.get_command(cli.build()), ("em-bench",)))
    headings = re.findall(r"^#+ (em-bench .+)$", said, re.MULTILINE)
    assert headings == [" ".join(words) for words, _ in found]
    options = {o for _, c in found for p in c.params if p.param_type_name == "option" for o in p.opts} - {"--help", "-h"}
    assert options and not {o for o in options if f"`{o}" not in said and f", {o}" not in said}


def test_the_modules_of_the_reference_are_there(pages):
    assert all(importlib.util.find_spec(m) for m in pages.MODULES)


def test_links_are_the_sites_or_the_repositorys_or_text(pages, monkeypatch, tmp_path):
    listed = set(pages.written())
    monkeypatch.delenv("REPO_URL", raising=False)
    said = pages.collected("docs/ethics.md", listed, tmp_path)
    assert "](../tasks/narrow/README.md)" in said and "](evaluate.md)" in said
    assert "](LICENSE" not in pages.collected("README.md", listed, tmp_path)
    monkeypatch.setenv("REPO_URL", "https://forge.example/em_bench")
    assert "](https://forge.example/em_bench/blob/main/CITATION.cff)" in pages.collected("README.md", listed, tmp_path)
    drawn = pages.collected("docs/architecture.md", listed, tmp_path)
    assert "mermaid" not in drawn and re.search(r"^\| cli/ \| .*hub/.* \|$", drawn, re.MULTILINE)


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#here">b</a><a href="b.html#gone">b</a><a href="c.html">c</a>'
        '<a href="https://forge.example">out</a><script src="https://cdn.example/x.js"></script><a href="#top">up</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="here">B</h1><img src="data:,">')
    assert module("check_links").problems(tmp_path) == [
        "a.html: b.html#gone: no such anchor",
        "a.html: c.html: no such file",
        "a.html: loads https://cdn.example/x.js",
    ]
