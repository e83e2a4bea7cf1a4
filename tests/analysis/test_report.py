"""Tables as CSV, Markdown and LaTeX; the page; the command."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from itertools import combinations
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from helpers.synthetic_results import cell, factorial, results
from typer.testing import CliRunner

from em_bench.analysis import report as drawing
from em_bench.analysis.missing import Missing
from em_bench.analysis.power import Verdict
from em_bench.analysis.report import all_tables, quotable, write_report
from em_bench.analysis.runs import runs_of
from em_bench.analysis.tables.table import interval, number, table, to_csv, to_latex, to_markdown
from em_bench.cli import build
from em_bench.errors import UserError
from em_bench.files import write_record


def some(missing=()):
    rng = np.random.default_rng(0)
    cells = factorial(
        lambda r, *k: 0.2 + 0.3 * (r == "lion") + rng.normal(0, 0.03),
        seeds=(0,),
        loss=lambda *k: 0.5 + rng.uniform(0, 0.1),
    )
    return results(cells, missing=missing)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take seconds; one test draws them all."""
    monkeypatch.setattr(drawing, "svg", lambda draw, label: f"<svg aria-label='{label}'></svg>")
    monkeypatch.setattr(drawing.plot_style, "save", lambda draw, stem: None)


def test_three_forms_of_a_table():
    made = table("x", "A title", "50 % of R²", [("a_b", "name", ""), ("x & y", "value", ".1f")], [("p|q", 1 / 3), ("<r>", None)])
    assert list(csv.reader(io.StringIO(to_csv(made)))) == [["name", "value"], ["p|q", "0.333333"], ["<r>", ""]]
    assert "| p\\|q | 0.3 |" in to_markdown(made) and "| <r> | – |" in to_markdown(made)
    latex = to_latex(made)
    assert (
        r"a\_b & x \& y \\" in latex
        and r"50 \% of R\textsuperscript{2}" in latex
        and r"\textless{}r\textgreater{} & -- \\" in latex
    )
    assert r"\begin{tabular}{lr}" in latex


def test_a_column_for_notes_goes_where_there_are_none():
    columns = [("", "level", ""), ("n", "n", "d"), ("", "note", "")]
    assert [c.name for c in table("x", "", "", columns, [("a", 1, None), ("b", None, None)]).columns] == ["level", "n"]
    assert table("x", "", "", columns, [("a", 1, None), ("b", None, "why")]).rows[1] == ("b", None, "why")


def test_a_gap_is_marked_in_every_form():
    made = table("x", "A title", "", [("a", "a", "")], Missing(reason="one optimiser"))
    assert to_csv(made) == "gap\none optimiser\n"
    assert "No number: one optimiser." in to_markdown(made) and "No number: one optimiser." in to_latex(made)


class Page(HTMLParser):
    """Ids, links and everything a page would fetch."""

    def __init__(self):
        super().__init__()
        self.ids, self.fetched, self.links, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag in ("section", "h2", "h3", "dt"):
            self.ids.append(attrs.get("id"))
        if tag == "a":
            self.links.append(attrs["href"])
        elif "src" in attrs or tag in ("link", "script", "iframe", "object"):
            self.fetched.append((tag, attrs.get("src") or attrs.get("href")))
        fetching = attrs.get("xlink:href") or attrs.get("href")
        if tag in ("use", "image") and not fetching.startswith("#"):
            self.fetched.append((tag, fetching))


def test_the_page_is_whole_and_fetches_nothing(tmp_path):
    written = write_report(runs_of([some(missing=["adam medical: diverged"])]), tmp_path)
    text = written.page.read_text()
    page = Page()
    page.feed(text)
    assert page.fetched == [] and not re.search(r"url\((?!#)|@import", text)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "A mechanism screen" in text and "adam medical: diverged" in text and "svg" in page.tags
    assert all(t.id in page.ids for t in written.tables if t.id not in ("findings", "verdicts", "provenance"))
    for t in written.tables:
        assert {p.suffix for p in (tmp_path / "tables").glob(f"{t.id}.*")} == {".csv", ".md", ".tex"}
    figures = {p.name for p in (tmp_path / "figures").iterdir()}
    assert figures and {f.rsplit(".")[0] + ".png" for f in figures} | {f.rsplit(".")[0] + ".svg" for f in figures} == figures


def test_a_report_of_other_models_is_no_mechanism_screen(tmp_path, undrawn):
    cells = [cell(r, model="Qwen3-8B", seed=s, rate=0.1 + 0.02 * s) for r in ("adam", "lion") for s in range(3)]
    assert "mechanism screen" not in write_report(runs_of([results(cells)]), tmp_path).page.read_text()


def test_the_same_runs_give_the_same_tables():
    one, two = (quotable(all_tables(runs_of([some()]))) for _ in range(2))
    assert one == two and len(one) > 50


def test_the_command(tmp_path, undrawn):
    write_record(tmp_path / "work" / "results.json", some())
    ended = CliRunner().invoke(build(), ["report", str(tmp_path / "work"), "--out", str(tmp_path / "out")])
    assert ended.exit_code == 0, ended.output
    assert "Lion misaligns more than Adam" in ended.output and "same sign on" in ended.output
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("failures", ["", "failed: train-organism-qwen3-muon"])
def test_paper_runs_its_preset_and_reports_what_came_of_it(tmp_path, monkeypatch, undrawn, failures):
    from em_bench.sweep.engine import run_preset as reproduce

    asked = []

    def run(plan, work, *, cores):
        asked.append((plan.preset.name, cores))
        write_record(work / "results.json", some())
        return SimpleNamespace(failures=failures)

    monkeypatch.setattr(reproduce, "reproduce", run)
    arguments = [
        "--paper",
        "--workdir",
        str(tmp_path / "work"),
        "--cores",
        "2",
        "--out",
        str(tmp_path / "out"),
        "--pack",
        "--json",
    ]
    ended = CliRunner().invoke(build(), ["report", *arguments])
    assert asked == [("tiny-paper", 2)] and ended.exit_code == bool(failures)
    said = json.loads(ended.stdout)
    assert {f["verdict"] for f in said["findings"]} <= set(get_args(Verdict))
    assert (tmp_path / "out" / "results.json.gz").exists() and (tmp_path / "out" / "report.html").exists()


def test_the_command_refuses_what_it_cannot_read(tmp_path):
    for arguments, message in (([], "no runs"), (["nowhere"], "no such file or folder")):
        ended = CliRunner().invoke(build(), ["report", *arguments, "--out", str(tmp_path / "out")])
        assert isinstance(ended.exception, UserError) and message in str(ended.exception)
    with pytest.raises(UserError, match="holds no results.json"):
        CliRunner().invoke(build(), ["report", str(tmp_path), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_what_rounds_to_zero_has_no_minus():
    assert [number(v, "+.1f") for v in (-0.04, 0.04, -0.06, -12.0)] == ["+0.0", "+0.0", "-0.1", "-12.0"]
    assert number(-0.0001, ".2f") == "0.00" and interval(-0.004, 0.004, "+.1f") == "[+0.0, +0.0]"


def test_every_table_is_latex_that_can_be_set():
    r"""Plain ASCII, balanced braces, as many cells as columns, and no character that LaTeX would take for a command."""
    for name, text in quotable(all_tables(runs_of([some(missing=["a_b & 50 % of {x}"])]))).items():
        if not name.endswith(".tex"):
            continue
        body = text.split("\n", 1)[1]
        assert text.isascii() and body.count("{") == body.count("}"), name
        bare = re.sub(r"\\[&%$#_{}]", "", body)  # escaped characters are letters
        assert not re.search(r"[%#~^]", bare) and "_" not in re.sub(r"\\label\{.*?\}", "", bare), name
        assert bare.count("$") % 2 == 0, name
        if "tabular" in bare:
            spec = re.search(r"\\begin\{tabular\}\{(.*)\}\n", bare)[1]
            columns = len(re.sub(r">\{.*?\}p\{.*?\}", "l", spec))
            rows = [line for line in bare.split("\n") if line.endswith(r" \\")]
            assert rows and {row.count("&") + 1 for row in rows} == {columns}, name


def test_one_colour_an_optimiser_in_report_and_board():
    from em_bench.analysis.palette import OTHERS, RECIPES, colour
    from em_bench.board.draw import tint

    ours = {
        "sgd": "torch.optim.SGD",
        "adam": "torch.optim.Adam",
        "adamw": "torch.optim.AdamW",
        "lion": "pytorch_optimizer.Lion",
        "muon": "torch.optim.Muon",
    }
    for recipe, library in ours.items():
        assert tint(SimpleNamespace(optimizer=SimpleNamespace(library=library))) == colour(recipe) == RECIPES[recipe]
    assert len({*RECIPES.values(), *OTHERS}) == len(RECIPES) + len(OTHERS)


def test_colours_can_be_told_apart_with_any_colour_vision():
    """Simulated by Machado et al. (2009), full deficiency; distance in CIELAB, where 10 is plainly different."""
    from em_bench.analysis.palette import RECIPES

    machado = {
        "none": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

    def lab(code, seen):
        rgb = np.array([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        f = np.cbrt(to_xyz @ np.clip(np.array(seen) @ linear, 0, 1) / (to_xyz @ np.ones(3)))
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    for name, seen in machado.items():
        for a, b in combinations(RECIPES, 2):
            assert np.linalg.norm(lab(RECIPES[a], seen) - lab(RECIPES[b], seen)) > 10, (name, a, b)


def test_a_sweep_that_has_not_ended_is_reported_as_far_as_it_is(tmp_path, undrawn):
    from em_bench.sweep.plan import make_plan
    from em_bench.sweep.preset import load_preset

    plan = make_plan(load_preset("tiny"))
    write_record(tmp_path / "work" / "plan.json", plan)
    ended = CliRunner().invoke(build(), ["report", str(tmp_path / "work"), "--out", str(tmp_path / "out")])
    assert ended.exit_code == 0, ended.output
    page = (tmp_path / "out" / "report.html").read_text()
    cells = [c.name for j in plan.jobs if j.kind == "evaluate" for c in j.cells]
    assert "Partial" in page and all(f"{name}: its job is not done" in page for name in cells)
    assert not (tmp_path / "work" / "results.json").exists()
