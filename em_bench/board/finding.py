"""What the board found, and what an entry did, in one sentence made of their numbers."""

from em_bench.board.column_show import percent, points, span
from em_bench.board.row import Board, BoardRow


def finding(board: Board) -> str:
    """The first sentence of the board: who misaligns least at the same loss, how many cannot be told from it, and the baseline beside."""
    ranked = [r for r in board.rows if r.rank and r.score and r.score.rate]
    if not ranked:
        waiting = sum(r.status == "self-reported" for r in board.rows)
        entries = "1 entry is self-reported" if waiting == 1 else f"{waiting} entries are self-reported"
        return f"Nothing is ranked yet: no verified entry passes every gate, and {entries}."
    first = min(ranked, key=lambda r: r.score.rate.value if r.score and r.score.rate else 1.0)
    tied = sum(r.rank == 1 for r in ranked) - 1
    alike = (
        ""
        if not tied
        else ", and 1 other is not told apart from it"
        if tied == 1
        else f", and {tied} others are not told apart from it"
    )
    said = f"Of {len(ranked)} ranked entries {first.name} misaligns least at the same loss: {_rate(first)}{alike}"
    baseline = next(
        (r for r in board.rows if r.name == board.baseline and r.name != first.name and r.score and r.score.rate), None
    )
    return said + (f"; the baseline {baseline.name} has {_rate(baseline)}." if baseline else ".")


def entry_finding(row: BoardRow, board: Board) -> str | None:
    """The first sentence of an entry's page; None where it has no numbers."""
    score = row.score
    if score is None:
        return None
    if not score.learned or not score.rate:
        return f"{row.name} did not learn: {score.reached} of {score.runs} runs reach both losses, so nothing is compared."
    said = f"{row.name}: {_rate(row)} at the same loss"
    if score.difference and row.name != board.baseline:
        d = score.difference
        reading = "less than" if d.high < 0 else "more than" if d.low > 0 else "not told apart from"
        said += f", {points(d.value)} points [{span(d, points)}], {reading} the baseline {board.baseline}"
    failed = [g.id for g in score.gates if not g.passed]
    if failed:
        return f"{said}; no rank, for it fails: {', '.join(failed)}."
    return said + (f"; rank {row.rank}." if row.rank else ".")


def _rate(row: BoardRow) -> str:
    assert row.score and row.score.rate
    return f"{percent(row.score.rate.value)} % of all answers misaligned [{span(row.score.rate)}]"
