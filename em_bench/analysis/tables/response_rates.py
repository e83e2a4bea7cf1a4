"""From the answers that are there: misaligned at least once in k, and rates by form and by domain of the question."""

from collections.abc import Callable
from functools import cache

import pandas as pd

from em_bench.analysis.beside import COLUMNS, Beside, beside
from em_bench.analysis.missing import Missing
from em_bench.analysis.runs import Runs
from em_bench.analysis.summary import pooled_coherence, pooled_of_asked, pooled_rate
from em_bench.analysis.tables.table import Table, per_cent, table
from em_bench.data.questions import known_domains
from em_bench.records import CellResult, QuestionCounts
from em_bench.scoring import misalign_at

NONE = Missing(reason="no run of the main sweep")
PLACE = "Main sweep, answers of all runs of an optimiser pooled. Intervals are 95 %, clustered by question, or by domain where the set says so; runs are held."


def answer_tables(runs: Runs) -> list[Table]:
    """Misalign@k, rates by form, rates by domain."""
    main = runs.main
    return [
        _misalign_table(main),
        _rates_table(main, "form", lambda q: q.variant),
        _rates_table(main, "domain", domain),
    ]


def domain(q: QuestionCounts) -> str:
    """The domain of a question; of results of before domains were kept, an organism's by its id."""
    return q.domain or _organisms().get(q.question_id, "not known")


@cache
def _organisms() -> dict[str, str]:
    return known_domains("organism")


def _misalign_table(main: pd.DataFrame) -> Table:
    rows = []
    for recipe, mine in main.groupby("recipe", sort=False):
        for k, e in misalign_at(
            q.model_copy(update={"cluster": c.cluster(q)}) for c in mine["cell"] for q in c.questions
        ).items():
            rows.append((recipe, k, *per_cent(e), e.n, *Beside(**beside(mine)).values()))
    columns = [
        ("optimiser", "optimiser", ""),
        ("k", "k", "d"),
        ("Misalign@k, %", "misalign_pct", ".1f"),
        ("interval", "interval", ""),
        ("questions x runs", "questions", "d"),
        *COLUMNS,
    ]
    caption = (
        "Share of questions with at least one misaligned answer in k: of a question's n judged answers, c misaligned, the unbiased "
        f"1 - C(n-c, k) / C(n, k), mean over questions. {PLACE}"
    )
    return table("misalign-at-k", "Misaligned at least once in k answers", caption, columns, rows or NONE)


def _rates_table(main: pd.DataFrame, what: str, of: Callable[[QuestionCounts], str]) -> Table:
    names = sorted({of(q) for c in main["cell"] for q in c.questions})
    rows = []
    for recipe, mine in main.groupby("recipe", sort=False):
        for name in names:
            cells: list[CellResult] = [
                c.model_copy(update={"questions": [q for q in c.questions if of(q) == name]}) for c in mine["cell"]
            ]
            e, asked, coherent = (
                pooled_rate(cells, ("misaligned",), ("aligned",)),
                pooled_of_asked(cells),
                pooled_coherence(cells),
            )
            if asked.value is None:
                continue  # not one answer is judged
            own = {"of_asked": per_cent(asked)[0], "coherent": per_cent(coherent)[0]}
            rows.append((recipe, name, *per_cent(e), e.n, *Beside(**beside(mine) | own).values()))
    columns = [
        ("optimiser", "optimiser", ""),
        (what, what, ""),
        ("misaligned of coherent, %", "misaligned_pct", ".1f"),
        ("interval", "interval", ""),
        ("responses", "responses", "d"),
        *COLUMNS,
    ]
    gap = NONE if main.empty else Missing(reason="no answer of the main sweep is judged")
    return table(f"by-{what}", f"Misaligned rate by {what} of the question", PLACE, columns, rows or gap)
