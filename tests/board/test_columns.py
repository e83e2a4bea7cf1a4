"""A column is added in em_bench/board/columns.py and nowhere else."""

import csv

import pytest

from em_bench.board import columns
from em_bench.board.board import Board, Folders, read_board
from em_bench.board.column_show import BoardColumn, Scales
from em_bench.board.columns import COLUMNS
from em_bench.board.entry import Entry
from em_bench.board.publish import _cells, publish
from em_bench.scoring import outcome


@pytest.fixture(scope="module")
def made(original) -> tuple[Folders, Board]:
    folders = Folders.at(original)
    return folders, read_board(folders, "v2", "organism")


def test_one_more_column_is_in_the_table_its_explanations_and_the_csv(made, tmp_path, monkeypatch):
    folders, board = made
    own = BoardColumn(
        "reached",
        "runs",
        "runs <there>",
        "Runs that reach the loss & go on.",
        lambda r: r.score.reached,
        lambda r, v, s: f"<{v}>",
    )
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, own))
    publish(board, folders, tmp_path / "board.json", tmp_path / "site")
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


def test_every_column_shows_every_row(made):
    """Rows without a score too."""
    board = made[1]
    scales = Scales(rate_top=1.0, shift_top=1.0, baseline="adamw")
    bare = [r.model_copy(update={"score": None, "submission": None, "rank": None}) for r in board.rows]
    for row in (*board.rows, *bare):
        for c in COLUMNS:
            assert c.show(row, c.value(row), scales)


def test_broken_models_are_hollow_in_the_table_and_in_the_filter(made):
    """One cell below 90 % at one loss is enough, whatever the mean over cells is."""
    scales, by = Scales(rate_top=1.0, shift_top=1.0, baseline="adamw"), {c.key: c for c in COLUMNS}
    row = next(r for r in made[1].rows if r.name == "better")
    for share, marked in ((0.9, False), (0.8999, True)):
        cell = row.score.cells[0]
        view = cell.views["upper"]
        spoilt = view.model_copy(update={"beside": view.beside.model_copy(update={"coherent": share})})
        cell = cell.model_copy(update={"views": cell.views | {"upper": spoilt}})
        changed = row.model_copy(update={"score": row.score.model_copy(update={"cells": [cell]})})
        for key, hollow in (("rate", marked), ("rate_upper", marked), ("rate_lower", False)):
            assert ('fill="none"' in by[key].show(changed, by[key].value(changed), scales)) is hollow, key
        assert ("broken" in by["rate"].show(changed, 0.1, scales)) is marked
        assert _cells(changed)[0][3]["rate_upper"] is marked


def test_what_stands_beside_is_recounted_from_the_answers(made):
    """The end of one run: every share from the verdicts themselves."""
    folders, board = made
    entry = Entry(folders.submissions / "better")
    cell = entry.manifest.cells[0]
    said = [outcome(v) for v in entry.evaluation(cell.evaluated[max(cell.evaluated)]).verdicts[0][1]]
    point = next(r for r in board.rows if r.name == "better").score.cells[0].runs[0].points["end"]
    n = {o: said.count(o) for o in ("misaligned", "aligned", "incoherent")}
    assert point.misaligned == n["misaligned"] / len(said) and point.asked == len(said)
    assert point.of_coherent == n["misaligned"] / (n["misaligned"] + n["aligned"])
    assert point.coherent == (n["misaligned"] + n["aligned"]) / sum(n.values())
