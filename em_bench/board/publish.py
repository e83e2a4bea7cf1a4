"""The published board: board.json, and a static site that works from a file and asks nothing of any server."""

import csv
import io
import json
import unicodedata
from pathlib import Path
from statistics import fmean

from jinja2 import Environment
from markupsafe import Markup

from em_bench.board import column_show, columns, draw
from em_bench.board.benchmark import Tier, load_benchmark
from em_bench.board.board import Board, BoardRow, Folders
from em_bench.board.contained import Killed, contained
from em_bench.board.detail import Detail, detail_of
from em_bench.board.entry import Entry
from em_bench.board.finding import entry_finding, finding
from em_bench.board.picture import INKS, picture
from em_bench.board.views import RANKED as RANKED_VIEWS
from em_bench.board.views import VIEW_NAMES, View
from em_bench.errors import UserError
from em_bench.files import write_record, write_text
from em_bench.pages import links, templates, write_html
from em_bench.scoring import cannot_tell

RANKED = ("verified", "challenged", "retracted")  # the first list of the page; the second is everything else
MEASURE = "../../docs/measure.md"  # from the site of a clone
STATIC = ("style.css", "board.js")


def publish(board: Board, folders: Folders, published: Path, site: Path) -> Path:
    """Write board.json at `published`, the board's pictures beside it, and the site; returns its index.html."""
    write_record(published, board)
    for mode in INKS:
        write_text(published.with_name(f"board-{mode}.svg"), picture(board, mode))
    pages = _environment()
    tier = load_benchmark(board.benchmark, folders.benchmarks).tiers[board.tier]
    for name in STATIC:
        write_text(site / name, (Path(__file__).parent / "static" / name).read_text(encoding="utf-8"))
    common = {"board": board, "tier": tier}
    leads = [lead for lead in links(site / "index.html") if lead[0] != "Board"]
    below = [(words, to if "://" in to else f"../{to}") for words, to in leads]
    scores = [r.score for r in board.rows if r.score]
    rates = [i.high for s in scores for i in (s.rate, *(v.rate for v in s.views.values() if v)) if i]
    shifts = [abs(v) for s in scores if s.difference for v in (s.difference.low, s.difference.high)]
    listed = [r for r in board.rows if r.status in RANKED]
    write_html(
        site / "index.html",
        pages.get_template("index.html.j2").render(
            **common,
            up="",
            links=leads,
            finding=finding(board),
            columns=[c for c in columns.COLUMNS if c.alone],
            scatter=draw.scatter(listed),
            ranked=listed,
            others=[r for r in board.rows if r.status not in RANKED],
            scales=column_show.Scales(max(rates, default=1.0) or 1.0, max(shifts, default=0.1) or 0.1, board.baseline),
            groups={r.name: 0 if r.rank == 1 else 1 for r in board.rows if r.rank},
            cells={r.name: _cells(r) for r in board.rows},
        ),
    )
    write_html(
        site / "columns.html", pages.get_template("columns.html.j2").render(**common, up="", links=leads, columns=columns.COLUMNS)
    )
    entry_page = pages.get_template("entry.html.j2")
    for row in board.rows:
        write_html(
            site / "entries" / f"{row.name}.html",
            entry_page.render(
                **common, up="../", links=below, row=row, finding=entry_finding(row, board), detail=_detail(row, folders, tier)
            ),
        )
    for page in (site / "entries").glob("*.html"):
        if page.stem not in {r.name for r in board.rows}:
            page.unlink()
    write_text(site / "feed.xml", pages.get_template("feed.xml.j2").render(**common, news=_news(board.rows)))
    write_text(site / "board.csv", to_csv(board.rows))
    write_text(site / "schema.json", json.dumps(Board.model_json_schema(), indent=1) + "\n")
    write_record(site / "board.json", board)
    return site / "index.html"


def to_csv(rows: list[BoardRow]) -> str:
    """A line a row; numbers unrounded, nothing where there is no value. Text that a spreadsheet would run is quoted."""
    fields = [(c.key, c.value) for c in columns.COLUMNS] + list(columns.MORE)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([key for key, _ in fields])
    for row in rows:
        writer.writerow([_plain(value(row)) for _, value in fields])
    return out.getvalue()


def _environment() -> Environment:
    pages = templates("em_bench.board")
    pages.filters |= {
        "percent": column_show.percent,
        "points": column_show.points,
        "span": column_show.span,
        "number": column_show.number,
        "g": lambda v: "–" if v is None else f"{v:g}",
        "short": lambda v: "–" if v is None else v[:12],
    }
    pages.globals |= {
        "measure": MEASURE,
        "places": VIEW_NAMES,
        "broken": draw.broken,
        "mark": _mark,
        "tint": draw.tint,
        "span_points": lambda i: column_show.span(i, column_show.points),
    }
    return pages


def _mark(row: BoardRow, view: View) -> Markup:
    """The point of a rate, hollow where nothing can be told."""
    square = bool(row.submission and any(row.submission.lambdas))
    return draw.mark(draw.tint(row.submission), draw.broken(row.score, view), square)


def _plain(value: object) -> object:
    if value is None:
        return ""
    # In full width too, and after blanks: spreadsheets fold and trim before they look.
    if isinstance(value, str) and unicodedata.normalize("NFKC", value).lstrip()[:1] in tuple("=+-@|"):
        return "'" + value
    return value


def _cells(row: BoardRow) -> list[list]:
    """[model, dataset, {column: [rate, low, high]}, {column: hollow}, coherent] of each cell: what the page's filter shows."""
    out = []
    for c in row.score.cells if row.score else ():
        known = {view: v for view, v in c.views.items() if v}
        rates = {f"rate_{view}": [round(x, 4) for x in (v.rate.value, v.rate.low, v.rate.high)] for view, v in known.items()}
        hollow = {f"rate_{view}": cannot_tell(v.beside.coherent) is not None for view, v in known.items()}
        coherent = [known[view].beside.coherent for view in RANKED_VIEWS if view in known]
        mean = fmean(v for v in coherent if v is not None) if coherent and None not in coherent else None
        out.append([c.model, c.dataset, rates, hollow, mean and round(mean, 4)])
    return out


def _news(rows: list[BoardRow]) -> list[dict]:
    """Events by date, newest first: entries, challenges, answers."""
    out = []
    for r in rows:
        if r.created:
            out.append({"at": r.created, "name": r.name, "kind": "entry", "text": f"{r.name} entered"})
        for i, c in enumerate(r.challenges):
            out.append(
                {
                    "at": c.created,
                    "name": r.name,
                    "kind": f"challenge-{i}",
                    "text": f"{r.name} was challenged: {c.reason}",
                }
            )
            if c.answered:
                out.append({"at": c.answered, "name": r.name, "kind": f"answer-{i}", "text": f"{r.name} answered: {c.answer}"})
    return sorted(out, key=lambda e: (e["at"], e["name"], e["kind"]), reverse=True)


def _detail(row: BoardRow, folders: Folders, tier: Tier) -> Detail | None:
    """Read within limits, as when the entry was verified, where it was found to be drawable; None without results."""
    try:
        return contained(_read_detail, folders.submissions / row.name, tier) if row.score else None
    except Killed as e:
        raise UserError(f"{row.name}: its page cannot be made: {e}; run the command again") from None


def _read_detail(folder: Path, tier: Tier) -> Detail:
    return detail_of(Entry(folder), tier)
