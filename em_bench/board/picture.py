"""The board as one picture, for a page that shows no table: every entry's rate with its interval, in the order of the ranks."""

import io

from em_bench.board.draw import broken, tint
from em_bench.board.finding import finding
from em_bench.board.row import Board, BoardRow

INKS = {"light": "#1a1c20", "dark": "#e8eaee"}
MOST = 24  # rows; more are counted below them


def picture(board: Board, mode: str) -> str:
    """SVG text, transparent, in the ink of `mode`, a key of INKS. Entries without a rate are named, with what keeps them from one."""
    from em_bench.analysis.preset_figures import INK, STYLE, plt

    shown = board.rows[:MOST]
    with plt.rc_context(STYLE | {"svg.fonttype": "none"}):
        figure, axes = plt.subplots(figsize=(8.2, 0.9 + 0.3 * max(len(shown), 1)))
        for y, row in enumerate(shown):
            _draw(axes, y, row)
        axes.set_yticks(range(len(shown)), [_name(r) for r in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("misaligned of all answers asked for, % (95 % interval), at the same two losses")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        if len(board.rows) > MOST:
            axes.set_title(f"the first {MOST} of {len(board.rows)} entries", fontsize=10)
        out = io.StringIO()
        figure.savefig(out, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, INKS[mode]).replace("'DejaVu Sans'", "sans-serif")
    said = finding(board).replace("&", "&amp;").replace("<", "&lt;")
    return text.replace(">", f"><title>{said}</title>", 1)


def _name(row: BoardRow) -> str:
    return f"{row.rank}  {row.name}" if row.rank else row.name


def _draw(axes, y: int, row: BoardRow) -> None:
    score = row.score
    if row.status in ("failed", "retracted") or score is None or score.rate is None:
        said = row.status if row.status in ("failed", "retracted") or score is None else "did not learn"
        axes.text(0.01, y, said, va="center", fontsize=9, transform=axes.get_yaxis_transform())
        return
    ink, rate = tint(row.submission), score.rate
    hollow = any(broken(score, v) for v in ("upper", "lower"))
    square = row.submission is not None and any(row.submission.lambdas)
    axes.plot([100 * rate.low, 100 * rate.high], [y, y], color=ink, lw=5, alpha=0.4, solid_capstyle="butt")
    axes.plot([100 * rate.value], [y], marker="s" if square else "o", ms=7, mfc="none" if hollow else ink, mec=ink, mew=1.6)
    axes.annotate(f"{100 * rate.value:.1f}", (100 * rate.high, y), (5, 0), textcoords="offset points", va="center", fontsize=9)
