"""What happened inside the runs as tables: dynamics, spectra, regularisation, scale."""

from em_bench.analysis import dynamics, spectra
from em_bench.analysis.beside import COLUMNS
from em_bench.analysis.findings_dynamics import regularised
from em_bench.analysis.missing import Missing
from em_bench.analysis.paired import Difference
from em_bench.analysis.preconditions import organism
from em_bench.analysis.published_values import TERM_GAINS
from em_bench.analysis.runs import Runs
from em_bench.analysis.scale import scale
from em_bench.analysis.spectral_penalty import TOLERANCE, lambda_path
from em_bench.analysis.tables.table import Table, interval, table

CLUSTERED = "Intervals are 95 %: other questions and, where there are several, other seeds (t, Satterthwaite)."


SURE = (
    "Of the paper's twelve the five Qwen3, 235B among them, are sure (S); the others are ours (C). Its smallest may be Gemma-3-270m; "
    "no trend is claimed below 1B. "
)
OVER = "Means over layers and runs; of the condition number, the median over runs of the mean over layers."


def dynamics_tables(runs: Runs) -> list[Table]:
    """Trajectories and onsets."""
    cells = runs.of("dynamics")
    path, on = dynamics.trajectories(cells, runs.checkpoints), dynamics.onsets(cells, runs.checkpoints)
    columns = [
        ("optimiser", "optimiser", ""),
        ("step", "step", "d"),
        ("runs", "runs", "d"),
        ("ln training loss", "log_train_loss", "+.3f"),
    ]
    columns += [
        ("alignment", "alignment", ".1f"),
        ("CODE, %", "code_pct", ".1f"),
        ("misaligned of coherent, %", "misaligned_pct", ".1f"),
        *COLUMNS,
    ]
    steps = (
        path
        if isinstance(path, Missing)
        else [(p.recipe, p.step, p.runs, p.log_train_loss, p.alignment, p.code, p.rate, *p.values()) for p in path]
    )
    onset = (
        on
        if isinstance(on, Missing)
        else [(o.recipe, o.runs, o.with_em, o.learned, o.em, f"{o.em_later} of {o.with_em}") for o in on]
    )
    return [
        table("dynamics", "Training followed", "Means over the runs whose checkpoints were evaluated.", columns, steps),
        table(
            "onsets",
            "When the narrow task is learned and when EM appears",
            f"Median step at which the narrow loss has made half of its fall to the lowest of any run of the dataset, and at which the "
            f"misaligned rate has reached {dynamics.EM_FROM:g} %, of the runs that reach it.",
            [
                ("optimiser", "optimiser", ""),
                ("runs", "runs", "d"),
                ("with EM", "with_em", "d"),
                ("learned at step", "learned", ".1f"),
                ("EM at step", "em", ".1f"),
                ("EM later", "em_later", ""),
            ],
            onset,
        ),
        _early_stop_table(runs),
    ]


def _early_stop_table(runs: Runs) -> Table:
    share = f"{100 * dynamics.LEARNED:g} %"
    found = dynamics.early_stops(runs.of("dynamics"), runs.checkpoints)
    rows = (
        found
        if isinstance(found, Missing)
        else [
            (s.recipe, when, s.runs, m.step, m.alignment, m.rate, *m.values())
            for s in found
            for when, m in ((f"at {share}", s.early), ("at the end", s.end))
        ]
    )
    return table(
        "early-stop",
        f"Stopped early: at {share} of the narrow gain",
        f"Means over the followed runs where they have made {share} of the fall of their held-out narrow loss, linear between "
        "checkpoints, and at the end. No run was made for it.",
        [
            ("optimiser", "optimiser", ""),
            ("stopped", "stopped", ""),
            ("runs", "runs", "d"),
            ("at step", "step", ".1f"),
            ("alignment", "alignment", ".1f"),
            ("misaligned of coherent, %", "misaligned_pct", ".1f"),
            *COLUMNS,
        ],
        rows,
    )


def spectra_tables(runs: Runs) -> list[Table]:
    """Shapes at the end, over training, by place; correlation with alignment."""
    columns = [
        ("optimiser", "optimiser", ""),
        ("", "group", ""),
        ("runs", "runs", "d"),
        ("stable rank", "stable_rank", ".2f"),
        ("entropy", "entropy", ".3f"),
    ]
    columns += [
        ("condition", "condition_number", ".3g"),
        ("F/N", "frobenius_nuclear", ".3f"),
        ("F/N − 1/√r", "flatness_gap", ".4f"),
    ]
    kinds = (
        (
            "spectra-end",
            "Spectra at the end",
            f"Own learning rate, all models. {OVER}",
            spectra.at_the_end(runs.cells),
        ),
        ("spectra-training", "Spectra over training", f"Main sweep. {OVER}", spectra.over_training(runs.main)),
        ("spectra-place", "Spectra by projection and depth", f"Main sweep. {OVER}", spectra.by_place(runs.main)),
    )
    out = []
    for name, title, caption, found in kinds:
        rows = (
            found
            if isinstance(found, Missing)
            else [
                (
                    s.recipe,
                    s.group,
                    s.runs,
                    s.stable_rank,
                    s.entropy,
                    s.condition_number,
                    s.frobenius_nuclear,
                    s.flatness_gap,
                )
                for s in found
            ]
        )
        out.append(table(name, title, caption, columns, rows))
    plain = runs.cells[runs.cells["spectral_lambda"] == 0]
    groups = [("all runs", runs.cells), ("without the spectral term", plain)]
    lines: list[tuple] = []
    for name, cells in groups:
        related = spectra.flatness_and_alignment(cells, name)
        if isinstance(related, Missing):
            lines.append((name, None, None, None, None, None, related.reason))
        else:
            lines += [
                (name, held, None, None, None, None, c.reason)
                if isinstance(c, Missing)
                else (
                    name,
                    held,
                    c.runs,
                    c.settings,
                    c.r,
                    interval(c.low, c.high, ".2f"),
                    c.needed and f"cannot tell: takes {c.needed:,}",
                )
                for held, c in zip(spectra.HELD, related, strict=True)
            ]
    columns = [
        ("runs", "group", ""),
        ("held fixed", "given", ""),
        ("runs", "runs", "d"),
        ("units", "settings", "d"),
        ("r", "r", "+.2f"),
        ("interval", "interval", ""),
        ("", "gap", ""),
    ]
    caption = (
        "Pearson's r of flatness (minus F/N − 1/√r) and mean alignment over runs; intervals by Fisher's z from the number of "
        "optimisers, of one optimiser from its settings. An association, not a cause: what made the spectra flat (the optimiser, its learning rate) may act on its own."
    )
    out.append(table("flatness", "Flatness and alignment", caption, columns, lines))
    return out


def regularisation_table(runs: Runs) -> Table:
    """The lambda path of every optimiser."""
    path = lambda_path(regularised(runs))
    columns = [
        ("optimiser", "optimiser", ""),
        ("λ", "spectral_lambda", "g"),
        ("", "marks", ""),
        ("runs", "runs", "d"),
        ("alignment", "alignment", ".1f"),
    ]
    columns += [
        ("gain", "gain", "+.1f"),
        ("interval", "gain_interval", ""),
        ("paper's gain (cost)", "paper", ""),
        ("cost, nats", "cost", "+.4f"),
    ]
    columns += [
        ("interval", "cost_interval", ""),
        ("misaligned of coherent, %", "misaligned_pct", ".1f"),
        *COLUMNS,
    ]

    def parts(d, form: str) -> tuple:
        return (
            (d.mean, interval(d.low, d.high, form))
            if isinstance(d, Difference)
            else (None, d.reason if isinstance(d, Missing) else None)
        )

    rows = (
        path
        if isinstance(path, Missing)
        else [
            (
                s.recipe,
                s.spectral_lambda,
                ", ".join(w for w, on in (("picked", s.picked), ("efficient", s.efficient)) if on) or None,
                s.runs,
                s.alignment,
                *parts(s.gain, "+.1f"),
                TERM_GAINS.get(s.recipe) if s.picked else None,
                *parts(s.cost, "+.4f"),
                s.rate,
                *s.values(),
            )
            for s in path
        ]
    )
    caption = (
        f"Against the same run at λ 0; t intervals over settings (dataset, batch size), seeds averaged. Picked: the largest λ that costs at most "
        f"{TOLERANCE:g} nats, alignment unseen. Efficient: "
        "no other λ of that optimiser has both less loss and more alignment. What the same adapters scaled down would gain is not in it."
    )
    return table("regularisation", "What the spectral term buys and costs", caption, columns, rows)


def scale_table(runs: Runs) -> Table:
    """Rates by size and family under Adam."""
    t = scale(runs.of("scale"))
    columns = [
        ("model", "model", ""),
        ("family", "family", ""),
        ("parameters", "parameters", ",.0f"),
        ("misaligned of coherent, %", "misaligned_pct", ".1f"),
    ]
    columns += [("interval", "interval", ""), ("mean alignment", "alignment", ".1f"), ("runs", "runs", "d"), *COLUMNS]
    rows = (
        t
        if isinstance(t, Missing)
        else [
            (m.model, m.family, m.parameters, m.rate, interval(m.low, m.high), m.alignment, m.runs, *m.values()) for m in t.models
        ]
    )
    said = (
        ""
        if isinstance(t, Missing)
        else (
            f"Trend with size inside families: {(t.pairs + t.s) // 2} of {t.pairs} pairs of sizes rise, permutation "
            f"p = {t.p:.3f} "
            f"({'exact' if t.exact else 'sampled'}; the smallest possible is {t.smallest_p:.3f}). "
            + (f"Not in the trend, of unknown size or below 1B: {', '.join(t.left_out)}. " if t.left_out else "")
            + (f"Not ranked, their models being broken: {', '.join(t.broken)}. " if t.broken else "")
            + SURE * (not organism(runs.of("scale")))
        )
    )
    return table("scale", "Model size and family under Adam", said + CLUSTERED, columns, rows)
