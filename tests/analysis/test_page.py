"""index.html of a preset: what stands in it, and how Chromium lays it out."""

import re
import shutil
import subprocess

import pytest
from helpers.synthetic_results import cell, results

from em_bench.analysis.preset_page import write_page
from em_bench.analysis.report import write_report
from em_bench.analysis.runs import runs_of
from em_bench.analysis.summary import summary
from em_bench.pages import PAPER
from em_bench.records import SpectrumCurve

CURVE = SpectrumCurve(mean=[1.0, 0.5], lower_quartile=[1.0, 0.4], upper_quartile=[1.0, 0.6])


@pytest.fixture(scope="module")
def made():
    cells = [cell(recipe=None, learning_rate=None, dataset=None, rate=0.0, loss=None)]
    for recipe, rate in (("adam", 0.25), ("muon", 0.05)):
        for weight in (0.0, 1.0):
            kept = cell(recipe=recipe, rate=rate, spectral_lambda=weight, questions=40, samples=5)
            cells.append(kept.model_copy(update={"spectrum": CURVE}))
    return results(cells, preset="<b>made</b>", missing=["a cell & its reason"])


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    return write_page(made, tmp_path_factory.mktemp("page"))


def test_every_row_of_the_summary_is_in_the_table(made, page):
    html = page.read_text()
    table = html.split('id="table"')[1].split("</table>")[0]
    assert len(re.findall(r"<tr[^>]*><th scope=\"row\"", table)) == len(summary(made)) == 5
    assert ">25.0<" in table and ">5.0<" in table and "(base)" in table
    assert html.count("<svg") == 3 and "organism" in html and "Partial" in html


def test_texts_are_escaped_and_nothing_is_fetched(page):
    html = page.read_text()
    assert "<b>made" not in html and "a cell &amp; its reason" in html
    assert "<script" not in html
    assert not re.findall(r"""(?:src|href)=["']?https?:""", html.replace("xmlns:xlink", "").replace(PAPER, ""))


def test_a_page_of_failures_alone_can_be_written(tmp_path):
    html = write_page(results([], missing=["everything"]), tmp_path).read_text()
    assert "everything" in html and "<svg" not in html


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium (.ci/run installs it)")
@pytest.mark.parametrize("width", [500, 1200])
@pytest.mark.parametrize("kind", ["preset", "report"])
def test_the_page_is_no_wider_than_the_window(made, page, tmp_path, kind, width):
    """Tables and figures scroll inside themselves; the page does not scroll sideways."""
    probe = "<script>document.title = [document.documentElement.scrollWidth, innerWidth].join(' ')</script></body>"
    copy = tmp_path / "probe.html"
    page = page if kind == "preset" else write_report(runs_of([made]), tmp_path / "report").page
    copy.write_text(page.read_text().replace("</body>", probe))
    dom = subprocess.run(
        ["chromium", "--headless=new", "--no-sandbox", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom",
         copy.as_uri()],
        capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    scroll, inner = map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups())
    assert scroll <= inner and inner >= 400
