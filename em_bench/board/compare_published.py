"""Whether a board is the one that was published."""

import json
import math
from pathlib import Path

from em_bench.board.board import Board, read_board_file


def difference(board: Board, published: Path) -> str | None:
    """Where a board differs from the published one, or None. Raises UserError where there is none.

    Numbers may differ by 1e-9 of themselves: how a processor sums moves their last digits.
    """
    old = read_board_file(published)
    before, after = ({r.name: r.model_dump(mode="json") for r in b.rows} for b in (old, board))
    if strangers := sorted(before.keys() ^ after.keys()):
        return f"differs in {strangers[0]}: {'not published' if strangers[0] in after else 'published, but no entry'}"
    for name in sorted(after):
        if found := _unlike(after[name], before[name]):
            return f"differs in {name}: {found}"
    head, published_head = (b.model_dump(mode="json", exclude={"rows"}) for b in (board, old))
    found = _unlike(head, published_head)
    return f"differs in its head: {found}" if found else None


def _unlike(new: object, old: object, at: str = "") -> str | None:
    """The first place where two JSON values differ."""
    if isinstance(new, dict) and isinstance(old, dict) and new.keys() == old.keys():
        pairs = [(new[k], old[k], f"{at}.{k}" if at else k) for k in new]
    elif isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        pairs = [(x, y, f"{at}[{i}]") for i, (x, y) in enumerate(zip(new, old, strict=True))]
    else:
        alike = new == old
        if isinstance(new, float) and isinstance(old, float):
            alike = math.isclose(new, old, rel_tol=1e-9, abs_tol=1e-12)
        return None if alike else f"{at} is {_short(new)}, published {_short(old)}"
    return next((found for pair in pairs if (found := _unlike(*pair))), None)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
