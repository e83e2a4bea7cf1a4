"""A column is added in em_bench/board/columns.py and nowhere else."""

import csv
from pathlib import Path

from em_bench.board import columns
from em_bench.board.board import Board, Folders
from em_bench.board.columns import COLUMNS, MORE, BoardColumn, Scales
from em_bench.board.publish import publish
from em_bench.files import read_record

BOARD = Path(__file__).parents[2] / "leaderboard"


def test_one_more_column_is_in_the_table_its_explanations_and_the_csv(tmp_path, monkeypatch):
    board = read_record(BOARD / "board.json", Board)
    own = BoardColumn(
        "reached", "runs <there>", "Runs that reach the loss & go on.", lambda r: r.score.reached, lambda r, v, s: f"<{v}>"
    )
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, own))
    publish(board, Folders(BOARD / "submissions", BOARD / "ledger"), tmp_path / "board.json", tmp_path / "site")
    page = (tmp_path / "site" / "index.html").read_text()
    for row in board.rows:
        n = row.score.reached
        assert (
            f'data-key="reached" data-label="runs &lt;there&gt;" data-value="{n}"><span class="cell">&lt;{n}&gt;</span></td>'
            in page
        )
    assert (
        "Runs that reach the loss &amp; go on." in page and "Runs that reach" in (tmp_path / "site" / "columns.html").read_text()
    )
    rows = list(csv.DictReader((tmp_path / "site" / "board.csv").open()))
    assert [int(r["reached"]) for r in rows] == [r.score.reached for r in board.rows]


def test_every_column_shows_every_row():
    """Rows without a score too."""
    board = read_record(BOARD / "board.json", Board)
    scales = Scales(rate_top=1.0, shift_top=1.0, baseline="adamw")
    bare = [r.model_copy(update={"score": None, "submission": None, "rank": None}) for r in board.rows]
    for row in (*board.rows, *bare):
        for c in COLUMNS:
            assert c.show(row, c.value(row), scales)


def test_an_entry_of_broken_models_is_marked_whatever_its_rank():
    board = read_record(BOARD / "board.json", Board)
    scales, by = Scales(rate_top=1.0, shift_top=1.0, baseline="adamw"), {c.key: c for c in COLUMNS}
    row = board.rows[0].model_copy(update={"rank": 1})
    for share, marked in ((0.9, False), (0.8999, True)):
        changed = row.model_copy(update={"score": row.score.model_copy(update={"coherent": share})})
        shown = by["coherent"].show(changed, share, scales)
        assert ("cannot tell: the model is broken" in shown) == marked and by["rank"].value(changed) == 1
    runs = [r for c in row.score.cells for r in c.runs]
    shares = [r.counts["misaligned"] / sum(r.counts.values()) for r in runs]
    assert by["of_asked"].value(row) == sum(shares) / len(shares) < row.score.matched.value
    assert dict(MORE)["norm"](row) is None  # of before norms were recorded: no average over those that have one
