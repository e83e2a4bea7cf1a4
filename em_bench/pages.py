"""Pages from templates: a name that is not given is an error, and in HTML everything is escaped."""

import os
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from em_bench.files import write_text

PAPER = "https://arxiv.org/abs/2606.31591"
# What every page leads to: the words, and the file in a clone.
LEADS = {
    "Board": "leaderboard/site/index.html",
    "What was found": "docs/LOG.md",
    "How to enter": "docs/submit.md",
    "How to cite": "CITATION.cff",
    "Repository": "README.md",
}
IN_SITE = {
    "Board": "board/index.html",
    "What was found": "docs/LOG.html",
    "How to enter": "docs/submit.html",
    "How to cite": "index.html#cite",
}
# Of the tables: all but the board itself, which has cards of its own.
TABLE, CELL = re.compile(r'<table(?! class="board")\b.*?</table>', re.DOTALL), re.compile(r"<t[dh]\b[^>]*")
SITE = "EM_BENCH_SITE"  # the folder that a site is made in, whose pages lead to each other
REPOSITORY = "REPO_URL"


def templates(package: str) -> Environment:
    """The templates of a package of em_bench, e.g. `em_bench.board`."""
    loader = PackageLoader(package)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def plain_text(package: str, name: str) -> Template:
    """A template for Markdown, in which nothing is escaped: of what is given every part is a checked single line, or ours."""
    loader = PackageLoader(package)
    return Environment(
        loader=loader, autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def write_html(path: Path, html: str) -> None:
    """Write a page whose tables become cards where a screen is narrow: each cell knows its column's words."""
    write_text(path, TABLE.sub(lambda t: _labelled(t[0]), html))


def _labelled(table: str) -> str:
    heads = [_words(h) for h in re.findall(r"<th\b[^>]*>(.*?)</th>", table.partition("</thead>")[0], re.DOTALL)]
    top, _, body = table.partition("</thead>")

    def row(found: re.Match[str]) -> str:
        words = iter(heads)
        return CELL.sub(lambda c: f'{c[0]} data-head="{next(words, "")}"', found[0])

    named = '<table class="cards ' if "<table class=" in top else '<table class="cards"'
    top = top.replace('<table class="' if "<table class=" in top else "<table", named, 1)
    return top + "</thead>" + re.sub(r"<tr\b.*?</tr>", row, body, flags=re.DOTALL)


def _words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", "", html).replace('"', "&quot;").split())


def links(page: Path) -> list[tuple[str, str]]:
    """(words, address) of what a page leads to beside itself: in the site that it is made for, else in the clone that it lies in, and the paper.

    Addresses in a site or a clone are relative, so that both can be moved; outside of both only the paper is left.
    """
    at, site = Path(page).resolve().parent, os.environ.get(SITE)
    if site:
        found = {words: os.path.relpath(Path(site).resolve() / to, at) for words, to in IN_SITE.items()}
        if repository := os.environ.get(REPOSITORY):
            found["Repository"] = repository
    else:
        clone = next((p for p in at.parents if (p / "docs" / "LOG.md").is_file() and (p / "CITATION.cff").is_file()), None)
        there = {words: clone / to for words, to in LEADS.items()} if clone else {}
        found = {w: os.path.relpath(p, at) for w, p in there.items() if p.exists() and p != Path(page).resolve()}
    return [*found.items(), ("Paper", PAPER)]
