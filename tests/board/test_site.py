"""The published page in headless Chromium: sort, filter, open an entry, follow the chain; hostile text; phone and dark."""

import csv
import io
import json
import os
import shutil
import xml.etree.ElementTree as ET

import pytest
from helpers import synthetic_entries as synthetic
from helpers.browser import CHROMIUM, Browser
from helpers.verified import verify_all

from em_bench.board.board import read_board, read_board_file
from em_bench.board.compare_published import difference
from em_bench.board.draw import apart
from em_bench.board.ledger import challenge
from em_bench.board.publish import publish
from em_bench.files import sha256_file

EVIL = "<script>window.owned=1</script><img src=x onerror='window.owned=1'>\"'}}{{7*7}}"


@pytest.fixture(scope="module")
def site(original, tmp_path_factory):
    """The site of four entries; one of them writes markup wherever it may write."""
    top = tmp_path_factory.mktemp("site")
    folders = synthetic.leaderboard(top, synthetic.benchmark(("medical", "code")))
    synthetic.entry(folders, "adamw", lambda d, s: 0.5)
    synthetic.entry(folders, "better", lambda d, s: 0.05 if d == "medical" else 0.2, library="torch.optim.NAdam", track="open")
    synthetic.entry(folders, "lazy", library="torch.optim.SGD", reached=False)
    synthetic.entry(folders, "evil", lambda d, s: 0.5, description=EVIL, authors=[EVIL], licence=EVIL, library="torch.optim.Adam")
    challenge(folders.ledger, folders.submissions, "evil", reason=EVIL, by=EVIL, answer=None, retract=None)
    challenge(folders.ledger, folders.submissions, "lazy", reason=None, by=None, answer=None, retract="it was a mistake")
    verify_all(folders)
    board = read_board(folders, "v2", "organism")
    publish(board, folders, top / "board.json", top / "site")
    return folders, board, top / "site"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    b = Browser(tmp_path_factory.mktemp("profile"))
    yield b
    b.close()


@pytest.fixture
def page(browser, site):
    browser.resize(1300, 900)
    browser.dark(False)
    browser.open(site[2] / "index.html")
    assert browser.errors == []
    return browser


NAMES = "[...document.querySelectorAll('#board tbody tr')].filter(r => !r.hidden).map(r => r.dataset.name)"


def click(page, key: str) -> list[str]:
    page.run(f"document.querySelector('#board th[data-key={key}] button').click()")
    return page.run(NAMES)


def choose(page, name: str, value: str) -> list[str]:
    page.run(
        f"{{const e = document.forms[0].{name}; e.value = {value!r}; e.dispatchEvent(new Event('input', {{bubbles: true}}));}}"
    )
    return page.run(NAMES)


def test_nothing_is_asked_of_anyone(page, site):
    for name in ("index.html", "columns.html", "entries/better.html"):
        page.open(site[2] / name)
        assert page.errors == []
        assert page.requests and all(u.startswith((site[2].as_uri(), "data:,")) for u in page.requests)


def test_rows_stand_in_the_order_of_their_ranks(page):
    assert page.run(NAMES)[0] == "better"
    assert page.run(NAMES)[-1] == "lazy"
    rank = "[...document.querySelectorAll('#board tbody tr')].map(r => r.cells[0].dataset.value)"
    assert page.run(rank) == ["1", "2", "", ""]


def test_sorting(page):
    assert click(page, "name") == ["adamw", "better", "evil", "lazy"]
    assert page.run("document.querySelector('th[data-key=name]').ariaSort") == "ascending"
    assert click(page, "name") == ["lazy", "evil", "better", "adamw"]
    assert page.run("document.querySelector('th[data-key=name]').ariaSort") == "descending"
    assert click(page, "rate")[0] == "better"
    down = click(page, "rate")
    assert down[-1] == "lazy" and down[2] == "better"  # no value: last, both ways
    assert page.run("document.querySelectorAll('th[aria-sort]').length") == 1


def test_filters(page):
    assert choose(page, "track", "open") == ["better"]
    assert page.run("document.getElementById('shown').textContent") == "1 of 4 entries"
    assert choose(page, "track", "") and set(choose(page, "status", "challenged")) == {"evil"}
    assert choose(page, "status", "retracted") == ["lazy"]
    choose(page, "status", "")
    assert choose(page, "search", "BETT") == ["better"]
    page.run("document.querySelector('button[type=reset]').click()")
    page.wait(f"{NAMES}.length === 4")


def test_a_dataset_shows_its_own_rates(page, site):
    row = next(r for r in site[1].rows if r.name == "better")
    cell = next(c for c in row.score.cells if c.dataset == "code")
    shown = "document.querySelector('tr[data-name=better] [data-key=rate_lower]').dataset.value"
    before = page.run(shown)
    choose(page, "dataset", "code")
    assert float(page.run(shown)) == pytest.approx(cell.views["lower"].rate.value, abs=1e-4)
    assert page.run("document.querySelector('tr[data-name=better] [data-key=rank]').textContent") == "–"
    choose(page, "dataset", "")
    assert page.run(shown) == before == str(row.score.views["lower"].rate.value)


def test_the_keyboard_alone_sorts_and_opens_an_entry(page):
    for _ in range(40):
        page.key("Tab")
        if page.run("document.activeElement.closest('th')?.dataset.key") == "name":
            break
    page.key("Enter", "\r")
    assert page.run(NAMES) == ["adamw", "better", "evil", "lazy"]
    for _ in range(40):
        page.key("Tab")
        if page.run("document.activeElement.textContent") == "better":
            break
    page.key("Enter", "\r")
    page.wait("location.pathname.endsWith('/entries/better.html') && document.readyState === 'complete'")


def test_the_chain_leads_to_the_files(page, site):
    folders, board, _ = site
    page.run("document.querySelector('tr[data-name=better] a').click()")
    page.wait("location.pathname.endsWith('/entries/better.html') && document.readyState === 'complete'")
    results = folders.submissions / "better" / "results"
    assert sha256_file(results / "manifest.json") in page.run("document.getElementById('main').textContent")
    shown = set(page.run("[...document.querySelectorAll('td.hash')].map(c => c.title)"))
    for kind in ("responses.jsonl", "verdicts.jsonl", "score.json", "train.jsonl"):
        assert {sha256_file(p) for p in results.rglob(kind)} <= shown
    checks = page.run("[...document.querySelectorAll('#checks + div tbody tr')].map(r => r.cells[2].textContent)")
    assert len(checks) == len(next(r for r in board.rows if r.name == "better").checks) and set(checks) == {"pass"}


def test_markup_in_every_field_is_text(page, site):
    for name in ("index.html", "entries/evil.html"):
        page.open(site[2] / name)
        assert page.run("window.owned") is None
        assert page.run("document.querySelectorAll('img').length") == 0
    assert EVIL in page.run("document.getElementById('main').textContent")
    feed = ET.fromstring((site[2] / "feed.xml").read_text())
    assert any(EVIL in (e.text or "") for e in feed.iter("{http://www.w3.org/2005/Atom}title"))


def test_challenges_and_retractions_show(page, site):
    assert page.run("getComputedStyle(document.querySelector('tr[data-name=lazy]')).textDecorationLine") == "line-through"
    page.open(site[2] / "entries" / "lazy.html")
    assert "it was a mistake" in page.run("document.querySelector('.note').textContent")
    page.open(site[2] / "entries" / "evil.html")
    assert "Challenge, open" in page.run("document.querySelector('.note').textContent")


@pytest.mark.parametrize("name", ["index.html", "columns.html", "entries/better.html"])
def test_a_phone_needs_no_sideways_scroll(page, site, name):
    page.resize(375, 700, phone=True)
    page.open(site[2] / name)
    assert page.run("document.documentElement.scrollWidth") <= 375
    assert page.run("[...document.querySelectorAll('.wide')].every(e => e.scrollWidth <= e.clientWidth)"), "tables are cards"


def test_a_desktop_shows_every_column(page):
    page.resize(1280, 900)
    assert page.run("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.wide'))") <= 0


def test_pages_open_with_what_was_found(page, site):
    row = next(r for r in site[1].rows if r.name == "better")
    rate = f"{100 * row.score.rate.value:.1f} %"
    first = "document.querySelector('main h1 + p').textContent"
    assert f"better misaligns least at the same loss: {rate}" in page.run(first) and "the baseline adamw has" in page.run(first)
    page.open(site[2] / "entries" / "better.html")
    assert page.run(first).startswith(f"better: {rate}") and page.run(first).endswith("less than the baseline adamw; rank 1.")
    page.open(site[2] / "entries" / "lazy.html")
    assert "lazy did not learn" in page.run(first)
    assert page.run("[...document.querySelectorAll('nav a')].map(a => a.href)")[-1] == "https://arxiv.org/abs/2606.31591"


@pytest.mark.parametrize(("mode", "ink"), [("light", "#1a1c20"), ("dark", "#e8eaee")])
def test_the_board_is_drawn_in_light_and_dark(site, mode, ink):
    text = (site[2].parent / f"board-{mode}.svg").read_text()
    ET.fromstring(text)
    assert ink in text and "#123456" not in text and "<script" not in text
    assert all(row.name in text for row in site[1].rows)


CONTRAST = """(() => {
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const numbers = (s) => s.match(/[\\d.]+/g).map(Number);
  const back = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c.slice(0, 3); }
    return null; };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    if (!e.childNodes.length || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || e.closest('svg, script, option, .skip')) continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color).slice(0, 3)), light(back(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(e.textContent.trim().slice(0, 40));
  }
  return low;
})()"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["index.html", "entries/evil.html"])
def test_letters_stand_out_from_the_paper(page, site, name, dark):
    page.dark(dark)
    page.open(site[2] / name)
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark
    assert page.run(CONTRAST) == []


def test_tables_have_headers_and_controls_have_labels(page, site):
    for name in ("index.html", "entries/better.html"):
        page.open(site[2] / name)
        assert page.run("[...document.querySelectorAll('table')].every(t => t.querySelector('th[scope=col]'))")
        assert page.run("[...document.querySelectorAll('input, select')].every(e => e.labels.length)")
        assert page.run(
            "[...document.querySelectorAll('[id]')].length === new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size"
        )


def test_exports_hold_the_board_unrounded(site):
    _folders, board, out = site
    rows = list(csv.DictReader(io.StringIO((out / "board.csv").read_text())))
    assert [r["name"] for r in rows] == [r.name for r in board.rows]
    assert float(rows[0]["rate"]) == board.rows[0].score.rate.value
    assert read_board_file(out / "board.json") == board
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(json.loads((out / "board.json").read_text()), json.loads((out / "schema.json").read_text()))


def test_cells_of_a_spreadsheet_are_no_formulas(site):
    from em_bench.board.publish import to_csv

    row = site[1].rows[0]
    spoiled = row.model_copy(update={"submission": row.submission.model_copy(update={"licence": "=cmd()"})})
    assert "'=cmd()" in to_csv([spoiled])


def test_the_same_files_give_the_same_board(site, tmp_path):
    folders, board, _ = site
    again = read_board(folders, "v2", "organism")
    assert again == board and difference(again, folders.submissions.parent / "board.json") is None
    shutil.copytree(folders.submissions.parent, tmp_path / "lb")
    os.utime(tmp_path / "lb" / "submissions" / "adamw" / "submission.yaml", (0, 0))
    assert read_board(type(folders).at(tmp_path / "lb"), "v2", "organism") == board
    fewer = board.model_copy(update={"rows": board.rows[1:]})
    published = folders.submissions.parent / "board.json"
    assert difference(fewer, published) == f"differs in {board.rows[0].name}: published, but no entry"


@pytest.mark.parametrize(("factor", "says"), [(1 + 1e-14, None), (1 + 1e-7, "p_leader is")])
def test_numbers_of_another_processor_are_the_same_and_other_numbers_are_not(site, factor, says):
    folders, board, _ = site
    rows = list(board.rows)
    i = next(i for i, r in enumerate(rows) if r.p_leader and r.p_leader < 1)
    rows[i] = rows[i].model_copy(update={"p_leader": rows[i].p_leader * factor})
    found = difference(board.model_copy(update={"rows": rows}), folders.submissions.parent / "board.json")
    assert found is None if says is None else found.startswith(f"differs in {rows[i].name}: {says}")


def test_a_state_colours_its_label_and_not_its_row(page):
    colour = "getComputedStyle(document.querySelector('tr[data-name=evil] [data-key=checks]')).color"
    assert page.run(colour) == page.run("getComputedStyle(document.body).color")
    assert page.run("getComputedStyle(document.querySelector('tr[data-name=evil] .status')).color") != page.run(colour)


def test_labels_that_would_lie_upon_each_other_are_moved_apart():
    assert apart([1.0, 1.1, 1.2, 5.0], 0.5) == pytest.approx([1.0, 1.5, 2.0, 5.0]) and apart([], 1) == []
