"""report.html, tables and figures of any set of runs: one folder, one self-contained page."""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from em_bench.analysis import dynamics, figure1, loss_alignment, plot_style, report_figures, spectra
from em_bench.analysis.anova import anova
from em_bench.analysis.beside import whole_settings
from em_bench.analysis.claims import findings
from em_bench.analysis.finding import Finding
from em_bench.analysis.findings_dynamics import regularised
from em_bench.analysis.findings_end_of_training import learning_rate_sweep
from em_bench.analysis.marginals import marginal
from em_bench.analysis.missing import Missing
from em_bench.analysis.preset_figures import plt, svg
from em_bench.analysis.preset_page import environment
from em_bench.analysis.published_values import ARXIV, SIZES, TITLE
from em_bench.analysis.runs import Runs
from em_bench.analysis.scale import scale
from em_bench.analysis.spectral_penalty import lambda_path
from em_bench.analysis.summary import why_two_views
from em_bench.analysis.tables import across_runs, within_runs
from em_bench.analysis.tables.base_seeds import base_seed_tables
from em_bench.analysis.tables.findings import findings_table, provenance_table, verdicts_table
from em_bench.analysis.tables.preset import control_table, view_tables
from em_bench.analysis.tables.response_rates import answer_tables
from em_bench.analysis.tables.table import Table, to_csv, to_latex, to_markdown
from em_bench.files import write_text
from em_bench.pages import links, write_html
from em_bench.protocol import BROKEN_BELOW

T = TypeVar("T")
PAGE = "report.html"
WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
PAPER_RATES = {"muon": 5.3, "adam": 13.85, "adamw": 13.85, "lion": 37.0}


class Figure(NamedTuple):
    """A figure that can be drawn, with the text that says what it shows."""

    id: str
    label: str
    draw: Callable[[], plt.Figure]


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]


class Written(NamedTuple):
    """What `write_report` made."""

    page: Path
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...]


def write_report(runs: Runs, out: Path, progress: Callable[[str], None] = lambda what: None) -> Written:
    """Write out/report.html, out/tables/ID.{csv,md,tex} and out/figures/ID.{svg,png}. `progress` hears what is next."""
    progress("findings")
    found = findings(runs)
    progress("tables")
    parts = report_sections(runs)
    tables = (*_quoted_first(runs, found), *(t for s in parts for t in s.tables))
    for name, text in quotable(tables).items():
        write_text(out / "tables" / name, text)
    drawn = {}
    for figure in (f for s in parts for f in s.figures):
        progress(f"figure {figure.id}")
        plot_style.save(figure.draw, out / "figures" / figure.id)
        drawn[figure.id] = svg(figure.draw, figure.label)
    progress("page")
    write_html(out / PAGE, _page(runs, found, parts, drawn, out / PAGE))
    return Written(out / PAGE, found, tables)


def all_tables(runs: Runs) -> tuple[Table, ...]:
    """Every table of the report."""
    return (*_quoted_first(runs, findings(runs)), *(t for s in report_sections(runs) for t in s.tables))


def _quoted_first(runs: Runs, found: tuple[Finding, ...]) -> tuple[Table, ...]:
    """The tables that the page shows in a form of its own."""
    return *headline(runs), findings_table(found), verdicts_table(found), provenance_table(runs.sources)


def headline(runs: Runs) -> tuple[Table, ...]:
    """Each preset at its fixed narrow losses, at the end of training, and beside rescaled adapters."""
    out: list[Table] = []
    for i, r in enumerate(runs.sources, 1):
        own = [t for t in (*view_tables(r), control_table(r)) if t is not None]
        several = len(runs.sources) > 1
        out += [t.model_copy(update={"id": f"{i}-{t.id}" if several else t.id, "title": f"{r.preset}: {t.title}"}) for t in own]
    return tuple(out)


def quotable(tables: Iterable[Table]) -> dict[str, str]:
    """File name -> text of every table in every form."""
    return {f"{t.id}.{ending}": text(t) for t in tables for ending, text in WRITERS.items()}


def report_sections(runs: Runs) -> tuple[Section, ...]:
    """The analyses in order. A figure whose analysis is a gap is left out: its table says why."""
    main, sweep, followed = runs.main, learning_rate_sweep(runs), runs.of("dynamics")
    by_recipe, by_model, variance = marginal(main, "recipe"), marginal(main, "model"), anova(whole_settings(main)[0])
    path, curves, places = (
        dynamics.trajectories(followed, runs.checkpoints),
        spectra.curves(runs.cells),
        spectra.by_place(main),
    )
    over, lambdas, sizes = spectra.over_training(main), lambda_path(regularised(runs)), scale(runs.of("scale"))
    size_rates = {k: float(v) for k, v in SIZES.items()}
    points, regressed = report_figures.points(sweep), loss_alignment.regressed(sweep)
    followed_ends = dynamics.followed(followed, runs.checkpoints) if len(runs.checkpoints) else followed.iloc[:0]
    base = figure1.start(followed_ends, runs.bases)
    trained = len(report_figures.points(regressed, loss_alignment.TRAIN)) or Missing(reason="")
    return (
        Section(
            "marginals",
            "Marginals and variance",
            (*across_runs.marginal_tables(runs), *across_runs.variance_tables(runs)),
            _figures(
                _figure(
                    by_recipe,
                    "rate-by-optimiser",
                    "Misaligned rate by optimiser",
                    lambda found: report_figures.marginal(found, PAPER_RATES),
                ),
                _figure(
                    by_model,
                    "rate-by-model",
                    "Misaligned rate by model",
                    lambda found: report_figures.marginal(found, size_rates),
                ),
                _figure(
                    variance,
                    "variance",
                    "Share of the variance of the misaligned rate by axis",
                    report_figures.variance,
                ),
            ),
        ),
        Section("answers", "Answers", tuple(answer_tables(runs)), ()),
        Section("bases", "Bases and ablations", tuple(base_seed_tables(runs)), ()),
        Section(
            "loss",
            "Loss and alignment",
            tuple(across_runs.loss_tables(runs)),
            _figures(
                _figure(
                    trained,
                    "figure-1",
                    f"Figure 1, the paper's and ours: alignment against the training loss, insecure code left out on the left. The paper's "
                    f"points are read off the figure (arXiv:{ARXIV}), with an error of about 0.005 in ln loss and 0.4 in alignment; dotted: only base and ends were read",
                    lambda _: figure1.draw(regressed, path, base),
                ),
                _figure(
                    len(points) or Missing(reason=""),
                    "loss-alignment",
                    "Mean alignment against the final narrow loss",
                    lambda _: report_figures.loss_alignment(sweep),
                ),
            ),
        ),
        Section(
            "dynamics",
            "Dynamics",
            tuple(within_runs.dynamics_tables(runs)),
            _figures(
                _figure(
                    path,
                    "trajectories",
                    "Paths of the optimisers through loss and alignment",
                    report_figures.trajectories,
                ),
                _figure(
                    path,
                    "training",
                    "Narrow loss, misaligned rate, coherence and code over training",
                    report_figures.training,
                ),
            ),
        ),
        Section(
            "spectra",
            "Spectra",
            tuple(within_runs.spectra_tables(runs)),
            _figures(
                _figure(curves, "singular-values", "Singular values by optimiser and lambda", report_figures.spectra),
                _figure(over, "spectra-training", "Spectral quantities over training", report_figures.shapes),
                _figure(places, "spectra-place", "Flatness gap by projection and depth", report_figures.places),
            ),
        ),
        Section(
            "regularisation",
            "Regularisation",
            (within_runs.regularisation_table(runs),),
            _figures(
                _figure(
                    lambdas,
                    "lambda-path",
                    "Alignment against narrow loss along the lambda path",
                    report_figures.pareto,
                ),
            ),
        ),
        Section(
            "scale",
            "Scale",
            (within_runs.scale_table(runs),),
            _figures(
                _figure(sizes, "scale", "Misaligned rate by model size and family", report_figures.scale),
            ),
        ),
    )


def _figure(found: T | Missing, name: str, label: str, draw: Callable[[T], plt.Figure]) -> Figure | None:
    """How what was found is drawn, where it was."""
    return None if isinstance(found, Missing) else Figure(name, label, partial(draw, found))


def _figures(*wanted: Figure | None) -> tuple[Figure, ...]:
    return tuple(f for f in wanted if f is not None)


def _page(runs: Runs, found: tuple[Finding, ...], parts: tuple[Section, ...], drawn: dict[str, str], to: Path) -> str:
    cells = [*runs.cells["cell"], *runs.bases["cell"]]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            found=found,
            verdicts=Counter(f.verdict for f in found),
            parts=parts,
            headline=headline(runs),
            why_two=[text for r in runs.sources if (text := why_two_views(r))],
            shown=[*headline(runs), *(t for s in parts for t in s.tables)],
            drawn=drawn,
            overview=svg(lambda: report_figures.verdicts(found), "Each finding's interval beside the paper's number")
            if _overview(found)
            else None,
            organism=runs.organism,
            broken_below=BROKEN_BELOW,
            sources=runs.sources,
            missing=[m for r in runs.sources for m in r.missing],
            ours={
                "models": sorted({c.model for c in cells}),
                "datasets": sorted({c.dataset for c in cells if c.dataset}),
                "batch_sizes": sorted({c.batch_size for c in cells if c.batch_size}),
                "seeds": sorted({c.seed for c in cells if c.seed is not None}),
                "questions": len({q.question_id for c in cells for q in c.questions}),
                "answers": max((sum(q.counts.values()) for c in cells for q in c.questions), default=0),
                "adapters": len(runs.cells),
                "checkpoints": len(runs.checkpoints),
            },
            title=TITLE,
            links=links(to),
            arxiv=ARXIV,
        )
    )


def _overview(found: tuple[Finding, ...]) -> bool:
    return any(f.value is not None for f in found)
