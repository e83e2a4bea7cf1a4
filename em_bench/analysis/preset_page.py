"""index.html of a preset: one static page with its tables and figures, no script and no external request."""

from pathlib import Path

from em_bench.analysis import preset_figures as figures
from em_bench.analysis.margin_page import margin_page
from em_bench.analysis.summary import judged, row_of, summary
from em_bench.files import write_text
from em_bench.pages import templates
from em_bench.protocol import BROKEN_BELOW
from em_bench.records import Estimate, Results

# docs/protocol.md, 5; P = stated in the abstract, S = independent readings of the full paper agree.
PAPER = (
    ("misaligned rate, Muon, main sweep", "5.3 %", "S"),
    ("misaligned rate, Adam and AdamW, main sweep", "13.8 to 13.9 %", "S"),
    ("misaligned rate, Lion, main sweep", "37.0 %", "S"),
    ("spread between optimisers", "7x", "P"),
    (
        "spectral term, alignment points gained (loss paid, nats)",
        "Adam +6.6 (0.013), Lion +8.0 (0.003), Muon +2.1, SGD -3.5",
        "S",
    ),
)


def write_page(results: Results, out_dir: Path) -> Path:
    """Write out_dir/index.html and return it."""
    environment = templates("em_bench.analysis")
    environment.filters |= {
        "rate": rate,
        "loss": lambda v: "–" if v is None else f"{v:.3f}",
        "g": lambda v: "–" if v is None else f"{v:g}",
    }
    if results.margins:
        write_text(out_dir / "index.html", margin_page(results, environment))
        return out_dir / "index.html"
    adapters = [c for c in results.cells if c.recipe]
    drawn = []
    if adapters and judged(results):
        drawn = [
            (
                "How much each optimiser misaligns",
                "rates",
                figures.svg(lambda: figures.rates(results), "Misaligned rate by optimiser"),
            ),
            (
                "Narrow loss and misalignment",
                "loss-alignment",
                figures.svg(
                    lambda: figures.loss_alignment(results), "Misaligned rate against held-out narrow loss, a point an adapter"
                ),
            ),
        ]
    if any(c.spectrum for c in adapters):
        drawn.append(
            (
                "Singular values of the adapters",
                "spectra",
                figures.svg(lambda: figures.spectra(results), "Singular-value spectra by optimiser"),
            )
        )
    page = environment.get_template("preset.html.j2").render(
        r=results,
        rows=summary(results),
        judged=judged(results),
        cells=results.cells,
        pooled=[row_of([c]) for c in results.cells],
        broken_below=BROKEN_BELOW,
        organism=any(c.model.startswith("organism-") for c in results.cells),
        figures=drawn,
        paper=PAPER,
    )
    write_text(out_dir / "index.html", page)
    return out_dir / "index.html"


def rate(e: Estimate | None) -> str:
    """A rate in per cent with its interval and denominator."""
    if e is None or e.value is None:
        return "none counted"
    interval = f" [{100 * e.low:.1f}, {100 * e.high:.1f}]" if e.low is not None and e.high is not None else ""
    return f"{100 * e.value:.1f}{interval}"
