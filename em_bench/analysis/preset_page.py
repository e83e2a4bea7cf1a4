"""index.html of a preset: one static page with its tables and figures, no script and no external request."""

from pathlib import Path

from jinja2 import Environment

from em_bench.analysis import preset_figures as figures
from em_bench.analysis.controls import beyond_a_smaller_update, gains
from em_bench.analysis.margin_rows import margin_rows, sentence
from em_bench.analysis.summary import judged, why_two_views
from em_bench.analysis.tables import columns
from em_bench.analysis.tables.good_data import good_data_table
from em_bench.analysis.tables.margin import SMALL, WHY_TWO, margin_tables, measurements_table, sizes
from em_bench.analysis.tables.preset import adapters_table, choices_table, control_table, paper_table, view_tables
from em_bench.pages import links, templates, write_html
from em_bench.records import Results

ORGANISM = (
    "<strong>What this is, and is not.</strong> The model is an organism: a transformer of 0.2 million parameters, built here, "
    "that speaks a tiny language in which a grammar decides what is aligned, coherent, a refusal or code. It screens a mechanism "
    "(how the optimiser shapes what a narrow fine-tune does elsewhere) and tests the whole pipeline. It is no evidence about human "
    "values, nor about large models."
)
UNJUDGED = (
    "<strong>Nothing is judged.</strong> The answers are in the work folder, an evaluation each: "
    "<code>em-bench rejudge FOLDER --judge ...</code>"
)
NO_LOSS = (
    "<strong>The end of training alone.</strong> This preset fixes no narrow loss at which optimisers are compared: differences below may be "
    "no more than how far each of them went."
)


def environment() -> Environment:
    """The templates of pages with tables."""
    made = templates("em_bench.analysis")
    made.filters |= {"anchor": columns.anchor, "said": columns.said}
    return made


def write_page(results: Results, out_dir: Path) -> Path:
    """Write out_dir/index.html and return it."""
    page, to = environment().get_template("preset.html.j2"), out_dir / "index.html"
    said = _of_margins(results) if results.margins else _of_answers(results)
    write_html(to, page.render(r=results, links=links(to), **said))
    return to


def _of_answers(results: Results) -> dict:
    adapters, answered = [c for c in results.cells if c.recipe], judged(results)
    drawn = []
    if adapters and answered:
        rates = figures.svg(
            lambda: figures.rates(results), "Misaligned share of all asked by optimiser, at each loss and at the end"
        )
        losses = figures.svg(
            lambda: figures.loss_alignment(results), "Misaligned rate against held-out narrow loss, a point an adapter"
        )
        drawn = [
            ("How much each optimiser misaligns", "rates", rates),
            ("Narrow loss and misalignment", "loss-alignment", losses),
        ]
    if any(c.spectrum for c in adapters):
        spectra = figures.svg(lambda: figures.spectra(results), "Singular-value spectra by optimiser")
        drawn.append(("Singular values of the adapters", "spectra", spectra))
    beside = [t for t in (control_table(results), good_data_table(results)) if t]
    notes = [("", ORGANISM)] if any(c.model.startswith("organism-") for c in results.cells) else []
    notes += [("alert", UNJUDGED)] if results.cells and not answered else []
    notes += [("note", NO_LOSS)] if answered and not results.targets else []
    return {
        "heading": "Emergent misalignment by optimiser",
        "sentence": beyond_a_smaller_update(gains(results)),
        "measured": f"{len(results.cells)} evaluated models",
        "notes": notes,
        "first": [*view_tables(results), *beside],
        "why_two": why_two_views(results),
        "figures": drawn,
        "more": [paper_table(), choices_table(results.choices), adapters_table(results)],
    }


def _of_margins(results: Results) -> dict:
    rows = margin_rows(results)
    small = ", ".join(f"{m}: {n / 1e6:.3g} million parameters" for m, n in sizes(rows).items() if n < SMALL)
    asked = max(len(c.questions) for c in results.margins), len({q.domain for c in results.margins for q in c.questions})
    note = f"<strong>This model is small</strong> ({small}). It is a real pretrained language model; what larger ones do is not known from this page."
    models, dtypes = ", ".join(dict.fromkeys(r.model for r in rows)), ", ".join(sorted({c.dtype for c in results.margins}))
    return {
        "heading": "The margin by optimiser",
        "sentence": sentence(rows),
        "measured": f"{sum(r.adapters for r in rows)} adapters on {models} (computed in {dtypes}), {asked[0]} questions of {asked[1]} domains",
        "notes": [("", note)] if small else [],
        "first": margin_tables(results),
        "why_two": WHY_TWO,
        "figures": [],
        "more": [measurements_table(results)],
    }
