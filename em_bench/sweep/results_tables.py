"""Results as terminal tables."""

from rich import box
from rich.table import Table

from em_bench.analysis.summary import judged
from em_bench.analysis.tables import table as analysis
from em_bench.analysis.tables.good_data import good_data_table
from em_bench.analysis.tables.margin import margin_tables
from em_bench.analysis.tables.preset import control_table, view_tables
from em_bench.records import Results


def results_tables(results: Results) -> list[Table]:
    """A row a model, recipe and lambda: at each fixed narrow loss, at the end of training, beside rescaled adapters. Or the margins."""
    if results.margins:
        tables = margin_tables(results)
    else:
        tables = [*view_tables(results), *(t for t in (control_table(results), good_data_table(results)) if t)]
    state = ("" if results.margins or judged(results) or not results.cells else " (nothing is judged)") + " (partial)" * bool(
        results.missing
    )
    models = sorted({c.model for c in (*results.cells, *results.margins)})
    title = f"{results.preset}: {models[0]}" if len(models) == 1 else results.preset
    return [_terminal(f"{title}{state}. {t.title}", t) for t in tables]


def _terminal(title: str, t: analysis.Table) -> Table:
    made = Table(title=title, caption=t.caption, box=box.SIMPLE, title_justify="left", caption_justify="left")
    for c in t.columns:
        made.add_column(c.head or c.name, justify="right" if c.form else "left")
    for row in t.shown():
        made.add_row(*("" if cell == analysis.NOTHING else cell for cell in row))
    return made
