"""The comparisons of the sweep as tables: marginals, variance, loss."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from em_bench.analysis import loss_alignment
from em_bench.analysis.beside import COLUMNS, whole_settings
from em_bench.analysis.findings_end_of_training import learning_rate_sweep
from em_bench.analysis.loss_alignment import HELD_OUT, TRAIN
from em_bench.analysis.marginals import AXES, NAMES, Marginal, marginal, spread
from em_bench.analysis.missing import Missing
from em_bench.analysis.published_values import (
    EQUAL_LOSS,
    FIGURE_MODEL,
    OPTIMISERS,
    R2,
    R2_ADJUSTED,
    R2_ALL,
    SIZES,
    figure1_points,
)
from em_bench.analysis.runs import Runs
from em_bench.analysis.tables.table import Table, interval, table

CLUSTERED = "Intervals are 95 %: other questions and, where there are several, other seeds (t, Satterthwaite)."


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
    stated: dict[str, Mapping[str, object]] = {"recipe": OPTIMISERS, "model": SIZES}
    for axis in AXES:
        paper = stated.get(axis)
        beside = [("paper, %", "paper_misaligned_pct", "")] if paper else []
        columns = [
            (NAMES[axis], "level", ""),
            ("misaligned of coherent, %", "misaligned_pct", ".1f"),
            ("interval", "misaligned_interval", ""),
        ]
        columns += [
            *beside,
            ("alignment", "alignment", ".1f"),
            ("interval", "alignment_interval", ""),
            ("CODE, %", "code_pct", ".1f"),
            ("runs", "runs", "d"),
            ("responses", "responses", "d"),
            *COLUMNS,
        ]
        found = marginal(runs.main, axis)
        title = f"Misaligned rate and mean alignment by {NAMES[axis]}"
        rows: list[tuple] | Missing
        if isinstance(found, Marginal):
            used = f"Over the {found.shared} of {found.combinations} combinations of the other axes that every level has. "
            rows = [
                (m.level, m.rate, interval(m.rate_low, m.rate_high))
                + ((paper.get(m.level),) if paper else ())
                + (
                    m.alignment,
                    interval(m.alignment_low, m.alignment_high),
                    m.code,
                    m.runs,
                    m.responses,
                    *m.values(),
                )
                for m in found.levels
            ]
        else:
            used, rows = "", found
        caption = f"{used}{CLUSTERED}{without_rate(runs.main)}"
        out.append(table(f"marginal-{axis.replace('_', '-')}", title, caption, columns, rows))
    return out


def variance_tables(runs: Runs) -> list[Table]:
    """Analysis of variance, the components, the spread ratio."""
    from em_bench.analysis.anova import Anova, anova, components, levels_needed  # statsmodels' formulas take a second to import

    columns = [
        ("effect", "effect", ""),
        ("df", "df", "d"),
        ("F", "f", ".2f"),
        ("error df", "error_df", ".1f"),
        ("p", "p", ".2g"),
        ("p, Holm", "p_holm", ".2g"),
    ]
    columns += [("η²", "eta2", ".3f"), ("partial η²", "partial_eta2", ".3f")]
    out: list[Table] = []
    whole, gone = whole_settings(runs.main)

    def on_whole(measure: Callable[[pd.DataFrame], Any]) -> Any:
        return Missing(reason=f"{gone}No setting is left") if gone and whole.empty else measure(whole)

    for value, what in (("rate", "misaligned rate"), ("alignment", "mean alignment")):
        a = on_whole(partial(anova, value=value))
        rows: list[tuple] | Missing = (
            a
            if isinstance(a, Missing)
            else [
                (" x ".join(NAMES[x] for x in e.axes), e.df, e.f, e.error_df, e.p, e.holm, e.eta2, e.partial_eta2)
                for e in a.effects
            ]
        )
        said, left = "", ""
        if isinstance(a, Anova):
            two = "with two-way interactions" if a.effects != a.main else "main effects alone: the runs allow no interactions"
            said = f"{gone}{a.runs} runs, {two}; {a.residual_df} residual degrees of "
            said += f"freedom, R² {a.r2:.2f}. "
            left = f" Left out: {'; '.join(a.left_out)}." if a.left_out else ""
        out.append(
            table(
                f"anova-{value}",
                f"Analysis of variance of the {what} (type II)",
                f"{said}Runs are the units (settings, where some have more seeds), the questions held; an axis is tested over its interactions with model and dataset. Holm corrects p for the effects of this table.{left}{without_rate(whole)}",
                columns,
                rows,
            )
        )
    columns = [
        ("axis", "axis", ""),
        ("highest", "highest", ""),
        ("lowest", "lowest", ""),
        ("ratio", "ratio", ".2f"),
    ]
    s = on_whole(partial(spread, axis="recipe"))
    rows = s if isinstance(s, Missing) else [("optimiser", s.highest, s.lowest, s.ratio)]
    caption = (
        f"{gone}Largest over smallest misaligned rate. The data pick the two levels, so of levels that are alike the ratio lies above 1 too, and no "
        "interval is given: whether optimisers differ is asked of the analysis of variance. The paper's over optimisers: 7x (P)."
    )
    c = on_whole(components)
    shares: list[tuple] | Missing = (
        c
        if isinstance(c, Missing)
        else [
            (" x ".join(NAMES.get(n, n) for n in p.name.split(" x ")), p.levels, p.sd, interval(p.low, p.high, ".1f")) for p in c
        ]
    )
    told = ""
    if not isinstance(c, Missing):
        first, second = c[0], c[1]
        apart = first.low is not None and second.high is not None and first.low > second.high
        told = (
            f"Most varies by {NAMES.get(first.name, first.name)}."
            if apart
            else (
                f"Which axis varies most: cannot tell; two standard deviations of which one is twice the other take {levels_needed()} levels of each axis."
            )
        )
    columns_of = [
        ("component", "component", ""),
        ("levels", "levels", "d"),
        ("standard deviation, points", "sd", ".1f"),
        ("95 %", "sd_interval", ""),
    ]
    said = f"{gone}{told} Random intercepts by REML; intervals: chi-squared, levels less one."
    out.append(table("components", "How much the misaligned rate varies by axis", said, columns_of, shares))
    out.append(table("spread", "Spread of the misaligned rate", caption, columns, rows))
    return out


def loss_tables(runs: Runs) -> list[Table]:
    """The paper's regression and the same on held-out loss, alignment at equal loss, residuals."""
    rows = learning_rate_sweep(runs)
    return [
        _r2_table(loss_alignment.regressed(rows), TRAIN),
        _r2_table(rows, HELD_OUT),
        _equal_train_table(loss_alignment.regressed(rows)),
        _equal_table(rows),
        _residuals_table(runs),
    ]


def _r2_table(rows_in: pd.DataFrame, loss: str) -> Table:
    model = rows_in["model"].iloc[0] if len(rows_in) else "no model"
    windows = sorted(set(rows_in["train_window"].dropna().astype(int)))
    by = loss_alignment.by_recipe(rows_in, loss)
    fits = [
        ("all", loss_alignment.overall(rows_in, loss=loss), R2_ALL),
        ("all, within datasets", loss_alignment.within_datasets(rows_in, loss), None),
        *((r, f, R2.get(r)) for r, f in by.items()),
        ("a line for each optimiser", loss_alignment.stratified(rows_in, loss), R2_ADJUSTED),
    ]
    columns = [
        ("runs of", "group", ""),
        ("runs", "runs", "d"),
        ("parameters", "parameters", "d"),
        ("slope", "slope", "+.1f"),
        ("R²", "r2", ".2f"),
        ("adjusted R²", "adjusted_r2", ".2f"),
        ("interval", "interval", ""),
        *([("paper", "paper", "")] if loss == TRAIN else []),
        ("", "gap", ""),
    ]

    def row(group, f, paper) -> tuple:
        beside = (None if paper is None else f"{paper:.2f}",) if loss == TRAIN else ()
        if isinstance(f, Missing):
            return (group, *[None] * 6, *beside, f.reason)
        slope = None if group.startswith("a line") else f.slope
        return (group, f.runs, f.parameters, slope, f.r2, f.adjusted_r2, interval(f.r2_low, f.r2_high, ".2f"), *beside, None)

    of = "insecure code left out, as in the paper" if loss == TRAIN else "every dataset"
    smoothed = (
        f", smoothed over the last {', '.join(map(str, windows))} steps (a tenth of the run)" if loss == TRAIN and windows else ""
    )
    caption = (
        f"Mean alignment on the natural log of the {loss_alignment.LOSSES[loss]}{smoothed}, every learning rate and batch size of {model} without "
        f"the spectral term, {of}. Intervals: bootstrap over settings within optimisers, seeds of a setting together; of R², and of "
        "adjusted R² in the last row."
        + (" The paper's are printed beside its Figure 1 (P), 54 runs; its last is adjusted." if loss == TRAIN else "")
    )
    name, title = ("loss-r2", "training loss") if loss == TRAIN else ("loss-r2-held-out", "held-out narrow loss")
    return table(name, f"How much of alignment the {title} explains", caption, columns, [row(*f) for f in fits])


def _equal_train_table(rows_in: pd.DataFrame) -> Table:
    """The paper's lines at its two losses, and ours where all of our optimisers have runs nearby."""
    theirs = loss_alignment.points(figure1_points(), TRAIN)
    found = [loss_alignment.lines_at(theirs, at) for at in EQUAL_LOSS]
    lines = [line for of in found if not isinstance(of, Missing) for line in of]
    ours = loss_alignment.at_equal_loss(rows_in, TRAIN)
    model = rows_in["model"].iloc[0] if len(rows_in) else "no model"
    paper = f"paper, {FIGURE_MODEL}"
    rows = [
        (paper, *_line(v), None) if v.inside else (paper, *_line(v)[:2], None, None, v.runs, "no number: its runs end before")
        for v in lines
    ]
    rows += (
        [("ours", *[None] * 5, ours.reason)] if isinstance(ours, Missing) else [(f"ours, {model}", *_line(v), None) for v in ours]
    )
    columns = [
        ("whose", "whose", ""),
        ("optimiser", "optimiser", ""),
        ("ln training loss", "log_train_loss", "+.2f"),
        ("alignment", "alignment", ".1f"),
        ("interval", "interval", ""),
        ("runs", "runs", "d"),
        ("", "note", ""),
    ]
    caption = (
        "Each optimiser's line, without insecure code. The paper's through the points read off its Figure 1 (error about 0.005 in "
        "ln loss, 0.4 in alignment); ours at the middle of the losses that all cover. Intervals: 95 % of the line, clustered by setting."
    )
    return table("equal-training-loss", "Alignment at equal training loss: the paper's and ours", caption, columns, rows)


def _line(a: loss_alignment.AtLoss) -> tuple:
    return a.recipe, float(np.log(a.loss)), a.alignment, interval(a.low, a.high), a.runs


def _equal_table(rows_in: pd.DataFrame) -> Table:
    at = loss_alignment.at_equal_loss(rows_in)
    equal = at if isinstance(at, Missing) else [(a.recipe, a.loss, a.alignment, interval(a.low, a.high), a.runs) for a in at]
    caption = (
        "Each optimiser's line at the middle (on the log scale) of the held-out losses that all cover, where each has runs within "
        "a tenth of that loss on either side. Intervals: 95 %, clustered by setting (dataset, batch size, learning rate). A line may leave 0 to 100."
    )
    columns = [
        ("optimiser", "optimiser", ""),
        ("narrow loss", "loss", ".3f"),
        ("alignment", "alignment", ".1f"),
        ("interval", "interval", ""),
        ("runs", "runs", "d"),
    ]
    return table("equal-loss", "Predicted alignment at equal narrow loss", caption, columns, equal)


def _residuals_table(runs: Runs) -> Table:
    found = loss_alignment.residuals(runs.of("dynamics"), runs.checkpoints)
    late = (
        found
        if isinstance(found, Missing)
        else [(r.recipe, r.early, r.late, r.change, interval(r.low, r.high, "+.1f"), r.runs) for r in found]
    )
    columns = [
        ("optimiser", "optimiser", ""),
        ("early", "early", "+.1f"),
        ("late", "late", "+.1f"),
        ("late minus early", "change", "+.1f"),
        ("interval", "interval", ""),
        ("runs", "runs", "d"),
    ]
    caption = (
        "Mean residual, in points, from one line through all checkpoints (on narrow loss); early is up to the square root of the last "
        "step. Intervals: t, over runs."
    )
    return table("residuals", "Residual alignment early and late in training", caption, columns, late)
