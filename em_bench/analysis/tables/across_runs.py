"""The comparisons of the sweep as tables: marginals, variance, loss."""

import pandas as pd

from em_bench.analysis import loss_alignment
from em_bench.analysis.claims import learning_rate_sweep
from em_bench.analysis.marginals import AXES, NAMES, Marginal, marginal
from em_bench.analysis.missing import Missing
from em_bench.analysis.mixed import mixed_logit
from em_bench.analysis.paper import OPTIMISERS, SIZES
from em_bench.analysis.runs import Runs
from em_bench.analysis.spread import DRAWS, spread
from em_bench.analysis.tables.table import Table, interval, table

CLUSTERED = "Intervals are 95 %, clustered by question."


def without_rate(rows: pd.DataFrame) -> str:
    """Names the runs that cannot take part: a table without them must not look whole."""
    gone = rows[rows["valued"] == 0]
    if gone.empty:
        return ""
    by = ", ".join(f"{recipe} {n}" for recipe, n in gone["recipe"].value_counts().items())
    return f" Without {len(gone)} of {len(rows)} runs, which gave no coherent response ({by})."


def marginal_tables(runs: Runs) -> list[Table]:
    """One table an axis."""
    out = []
    for axis in AXES:
        paper = {"recipe": OPTIMISERS, "model": SIZES}.get(axis)
        beside = [("paper, %", "paper_misaligned_pct", "")] if paper else []
        columns = [
            (NAMES[axis], "level", ""),
            ("misaligned, %", "misaligned_pct", ".1f"),
            ("interval", "misaligned_interval", ""),
        ]
        columns += [
            *beside,
            ("alignment", "alignment", ".1f"),
            ("interval", "alignment_interval", ""),
            ("narrow loss", "narrow_loss", ".3f"),
            ("coherent, %", "coherent_pct", ".1f"),
            ("CODE, %", "code_pct", ".1f"),
            ("runs", "runs", "d"),
            ("responses", "responses", "d"),
        ]
        found = marginal(runs.main, axis)
        title = f"Misaligned rate and mean alignment by {NAMES[axis]}"
        if isinstance(found, Marginal):
            used = f"Over the {found.shared} of {found.combinations} combinations of the other axes that every level has. "
            rows = [
                (m.level, m.rate, interval(m.rate_low, m.rate_high))
                + ((paper.get(m.level),) if paper else ())
                + (
                    m.alignment,
                    interval(m.alignment_low, m.alignment_high),
                    m.narrow_loss,
                    m.coherent,
                    m.code,
                    m.runs,
                    m.responses,
                )
                for m in found.levels
            ]
        else:
            used, rows = "", found
        caption = f"{used}{CLUSTERED} Runs are held.{without_rate(runs.main)}"
        out.append(table(f"marginal-{axis.replace('_', '-')}", title, caption, columns, rows))
    return out


def variance_tables(runs: Runs) -> list[Table]:
    """Analysis of variance, the mixed model, the spread ratios."""
    from em_bench.analysis.variance import Anova, anova  # statsmodels' formulas take a second to import

    columns = [("effect", "effect", ""), ("df", "df", "d"), ("F", "f", ".2f"), ("p", "p", ".2g"), ("p, Holm", "p_holm", ".2g")]
    columns += [("η²", "eta2", ".3f"), ("partial η²", "partial_eta2", ".3f")]
    out = []
    for value, what in (("rate", "misaligned rate"), ("alignment", "mean alignment")):
        a = anova(runs.main, value)
        rows = (
            a
            if isinstance(a, Missing)
            else [(" x ".join(NAMES[x] for x in e.axes), e.df, e.f, e.p, e.holm, e.eta2, e.partial_eta2) for e in a.effects]
        )
        said, left = "", ""
        if isinstance(a, Anova):
            two = "with two-way interactions" if a.effects != a.main else "main effects alone: the runs allow no interactions"
            said = f"{NAMES[a.most].capitalize()} matters most. {a.runs} runs, {two}; {a.residual_df} residual degrees of "
            said += f"freedom, R² {a.r2:.2f}. "
            left = f" Left out: {'; '.join(a.left_out)}." if a.left_out else ""
        out.append(
            table(
                f"anova-{value}",
                f"Analysis of variance of the {what} (type II)",
                f"{said}Runs are the units, the questions held. Holm corrects p for the effects of this table.{left}{without_rate(runs.main)}",
                columns,
                rows,
            )
        )
    m = mixed_logit(runs.main)
    columns = [
        ("axis", "axis", ""),
        ("level", "level", ""),
        ("log odds", "logit", "+.2f"),
        ("standard error", "stderr", ".2f"),
    ]
    columns += [("F of the axis", "f", ".1f"), ("p of the axis", "p", ".2g")]
    rows = (
        m if isinstance(m, Missing) else [(NAMES[t.axis], t.level, t.logit, t.stderr, m.f[t.axis], m.p[t.axis]) for t in m.terms]
    )
    said = (
        ""
        if isinstance(m, Missing)
        else (
            f"{m.responses} responses of {m.runs} runs; standard deviation of questions {m.question_sd:.2f} logits; "
            "standard errors widened by the "
            f"square root of the dispersion between runs, {m.dispersion:.1f}; Wald's F on {m.residual_df} residual degrees of freedom. Each level against its axis's first. "
        )
    )
    by = f"Maximum likelihood by adaptive Gauss-Hermite quadrature, questions as random effects.{without_rate(runs.main)}"
    out.append(table("mixed", "Mixed-effects logistic model of the responses", said + by, columns, rows))
    columns = [
        ("axis", "axis", ""),
        ("highest", "highest", ""),
        ("lowest", "lowest", ""),
        ("ratio", "ratio", ".2f"),
        ("interval", "interval", ""),
        ("", "note", ""),
    ]
    spreads = [(axis, spread(runs.main, axis, [a for a in AXES if a != axis])) for axis in AXES]
    rows = [
        (NAMES[axis], None, None, None, None, s.reason)
        if isinstance(s, Missing)
        else (
            NAMES[axis],
            s.highest,
            s.lowest,
            s.ratio,
            interval(s.low, s.high, ".2f") or f"[{s.low:.2f}, ...]",
            s.note or None,
        )
        for axis, s in spreads
    ]
    caption = (
        f"Largest over smallest misaligned rate. 95 % interval from {DRAWS:,} bootstrap draws of questions and seeds, models and "
        "datasets held; where a setting has one seed, the scatter of seeds is not in it. The data pick the two levels, so the "
        "ratio of levels that are alike is above 1 too. The paper's over optimisers: 7x (P)."
    )
    out.append(table("spread", "Spread of the misaligned rate", caption, columns, rows))
    return out


def loss_tables(runs: Runs) -> list[Table]:
    """R^2, alignment at equal loss, residuals."""
    rows_in = learning_rate_sweep(runs.cells)
    model = rows_in["model"].iloc[0] if len(rows_in) else "no model"
    fits = [
        ("all", loss_alignment.overall(rows_in), "0.74"),
        ("all, within datasets", loss_alignment.within_datasets(rows_in), None),
        *((r, f, None) for r, f in loss_alignment.by_recipe(rows_in).items()),
    ]
    fits.append(("stratified by optimiser", loss_alignment.stratified(rows_in), "0.94 (adjusted)"))
    columns = [
        ("runs of", "group", ""),
        ("runs", "runs", "d"),
        ("slope", "slope", "+.1f"),
        ("R²", "r2", ".2f"),
        ("adjusted R²", "adjusted_r2", ".2f"),
    ]
    columns += [("interval", "interval", ""), ("paper", "paper", ""), ("", "gap", "")]
    rows = [
        (g, None, None, None, None, None, paper, f.reason)
        if isinstance(f, Missing)
        else (
            g,
            f.runs,
            None if g.startswith("strat") else f.slope,
            f.r2,
            f.adjusted_r2,
            interval(f.r2_low, f.r2_high, ".2f"),
            paper,
            None,
        )
        for g, f, paper in fits
    ]
    caption = (
        f"Mean alignment on the log of the final held-out narrow loss, every learning rate and batch size of "
        f"{model} without the spectral term. Intervals: "
        "bootstrap over settings within optimisers, seeds of a setting together; of R², and of adjusted R² in the last row."
    )
    at = loss_alignment.at_equal_loss(rows_in)
    followed = loss_alignment.residuals(runs.cells, runs.checkpoints)
    equal = at if isinstance(at, Missing) else [(a.recipe, a.loss, a.alignment, interval(a.low, a.high), a.runs) for a in at]
    late = (
        followed
        if isinstance(followed, Missing)
        else [(r.recipe, r.early, r.late, r.change, interval(r.low, r.high, "+.1f"), r.runs) for r in followed]
    )
    return [
        table("loss-r2", "How much of alignment the narrow loss explains", caption, columns, rows),
        table(
            "equal-loss",
            "Predicted alignment at equal loss",
            "Each optimiser's line at the middle (on the log scale) of the losses that all cover, where each has runs within a "
            "tenth of that loss on either side. Intervals: 95 %, clustered by setting (dataset, batch size, learning rate). A line may leave 0 to 100.",
            [
                ("optimiser", "optimiser", ""),
                ("narrow loss", "loss", ".3f"),
                ("alignment", "alignment", ".1f"),
                ("interval", "interval", ""),
                ("runs", "runs", "d"),
            ],
            equal,
        ),
        table(
            "residuals",
            "Residual alignment early and late in training",
            "Mean residual, in points, from one line through all checkpoints; early is up to the square root of "
            "the last step. Intervals: t, over runs.",
            [
                ("optimiser", "optimiser", ""),
                ("early", "early", "+.1f"),
                ("late", "late", "+.1f"),
                ("late minus early", "change", "+.1f"),
                ("interval", "interval", ""),
                ("runs", "runs", "d"),
            ],
            late,
        ),
    ]
