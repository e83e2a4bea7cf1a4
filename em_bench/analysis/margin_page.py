"""index.html of a preset that measures the margin: the sentence, the table, every measurement."""

from itertools import groupby

from jinja2 import Environment

from em_bench.analysis.margin_rows import margin_rows, sentence, shift
from em_bench.data.models import load_models
from em_bench.records import Results

SMALL = 1e9  # parameters, below which a page says so (C)


def margin_page(results: Results, environment: Environment) -> str:
    """The page's text; `environment` holds the templates and their number formats."""
    rows = margin_rows(results)
    known, models = load_models(), list(dict.fromkeys(r.model for r in rows))
    sizes = {m: known[m].parameters for m in models if m in known}
    environment.filters["shift"] = lambda e: shift(e) or "–"
    return environment.get_template("margin.html.j2").render(
        r=results,
        sentence=sentence(rows),
        models=models,
        adapters=sum(r.adapters for r in rows),
        dtypes=sorted({c.dtype for c in results.margins}),
        questions=max(len(c.questions) for c in results.margins),
        domains=len({q.domain for c in results.margins for q in c.questions}),
        small=", ".join(f"{m}: {size / 1e6:.3g} million parameters" for m, size in sizes.items() if size and size < SMALL),
        targets=sorted({f"{r.target:g} nats an answer token ({r.dataset})" for r in rows if r.target}),
        groups=[(d, list(of)) for d, of in groupby(rows, key=lambda r: r.dataset)],
        cells=results.margins,
    )
