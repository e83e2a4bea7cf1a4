"""The published board: board.json, and a static site that works from a file and asks nothing of any server."""

import csv
import io
import json
import unicodedata
from pathlib import Path

from jinja2 import Environment

from em_bench.board import columns, draw
from em_bench.board.benchmark import Tier, load_benchmark
from em_bench.board.board import Board, BoardRow, Folders
from em_bench.board.contained import Killed, contained
from em_bench.board.detail import Detail, detail_of
from em_bench.board.entry import Entry
from em_bench.errors import UserError
from em_bench.files import write_record, write_text
from em_bench.pages import templates

STATIC = ("style.css", "board.js")


def publish(board: Board, folders: Folders, published: Path, site: Path) -> Path:
    """Write board.json at `published` and the site; returns its index.html."""
    write_record(published, board)
    pages = _environment()
    tier = load_benchmark(board.benchmark, folders.benchmarks).tiers[board.tier]
    for name in STATIC:
        write_text(site / name, (Path(__file__).parent / "static" / name).read_text(encoding="utf-8"))
    common = {"board": board, "tier": tier}
    rates = [i.high for r in board.rows if r.score for i in (r.score.matched, r.score.final) if i]
    shifts = [
        abs(v) for r in board.rows if r.score and r.score.difference for v in (r.score.difference.low, r.score.difference.high)
    ]
    write_text(
        site / "index.html",
        pages.get_template("index.html.j2").render(
            **common,
            up="",
            columns=columns.COLUMNS,
            scatter=draw.scatter(board.rows, read_frontier(folders, board)),
            scales=columns.Scales(max(rates, default=1.0) or 1.0, max(shifts, default=0.1) or 0.1, board.baseline),
            groups=_groups(board.rows),
            cells={r.name: _cells(r) for r in board.rows},
        ),
    )
    write_text(site / "columns.html", pages.get_template("columns.html.j2").render(**common, up="", columns=columns.COLUMNS))
    entry_page = pages.get_template("entry.html.j2")
    for row in board.rows:
        write_text(
            site / "entries" / f"{row.name}.html",
            entry_page.render(**common, up="../", row=row, detail=_detail(row, folders, tier)),
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


def read_frontier(folders: Folders, board: Board) -> list[draw.ScatterPoint]:
    """AdamW's measured path over its checkpoints, where the benchmark has one."""
    from em_bench import assets

    path = (folders.benchmarks or assets.path("leaderboard", "benchmark")) / "frontier" / f"{board.benchmark}-{board.tier}.json"
    if not path.exists():
        return []
    try:
        return [
            draw.ScatterPoint(int(p["step"]), float(p["loss"]), float(p["rate"])) for p in json.loads(path.read_text())["points"]
        ]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a frontier; measure it again with em_bench.board.create_tier") from None


def _environment() -> Environment:
    pages = templates("em_bench.board")
    pages.filters |= {
        "percent": columns.percent,
        "points": columns.points,
        "span": columns.span,
        "number": columns.number,
        "g": lambda v: "–" if v is None else f"{v:g}",
        "short": lambda v: "–" if v is None else v[:12],
    }
    pages.globals |= {"tint": draw.tint, "span_points": lambda i: columns.span(i, columns.points)}
    return pages


def _plain(value: object) -> object:
    if value is None:
        return ""
    # In full width too, and after blanks: spreadsheets fold and trim before they look.
    if isinstance(value, str) and unicodedata.normalize("NFKC", value).lstrip()[:1] in tuple("=+-@|"):
        return "'" + value
    return value


def _groups(rows: list[BoardRow]) -> dict[str, int]:
    """name -> number of its tie group, for the band at its side."""
    ranks = sorted({r.rank for r in rows if r.rank is not None})
    return {r.name: ranks.index(r.rank) for r in rows if r.rank is not None}


def _cells(row: BoardRow) -> list[list]:
    """[model, dataset, [matched, low, high], [final, low, high], coherent] of each cell: what the page's filter shows."""

    def three(i):
        return [round(v, 4) for v in (i.value, i.low, i.high)] if i else None

    out = []
    for c in row.score.cells if row.score else ():
        known = [r.coherent_rate for r in c.runs if r.coherent_rate is not None]
        out.append([c.model, c.dataset, three(c.matched), three(c.final), round(sum(known) / len(known), 4) if known else None])
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
