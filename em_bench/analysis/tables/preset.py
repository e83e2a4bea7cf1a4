"""The tables of one preset: what its page, its terminal and the report show first."""

from collections.abc import Iterable, Sequence
from typing import Any

from em_bench.analysis.controls import Gain, beyond_a_smaller_update, gains
from em_bench.analysis.summary import Row, matched, row_of, summary
from em_bench.analysis.tables.table import Table, per_cent, table
from em_bench.protocol import BROKEN_BELOW, REFUSING_ABOVE
from em_bench.records import Choice, Results

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
RATES = [
    ("narrow loss", "narrow_loss", ".3f"),
    ("misaligned of asked, %", "misaligned_of_asked_pct", ".1f"),
    ("95 %", "misaligned_of_asked_interval", ""),
    ("of coherent, %", "misaligned_pct", ".1f"),
    ("95 %", "misaligned_interval", ""),
    ("coherent, %", "coherent_pct", ".1f"),
    ("norm", "norm", ".2f"),
    ("F/N − 1/√r", "flatness_gap", ".3f"),
]
SETTINGS = (("model", "model", ""), ("batch", "batch_size", "d"), ("learning rate", "learning_rate", "g"))
OUTCOMES = ("misaligned", "aligned", "incoherent", "refusal", "unjudged")


def told_apart(items: Iterable[Any], settings: Sequence[tuple[str, str, str]] = SETTINGS) -> list[tuple[str, str, str]]:
    """The columns of SETTINGS without which two rows of one recipe would read alike."""
    made = [i for i in items if i.recipe]
    recipes = {i.recipe for i in made}
    return [of for of in settings if len({(i.recipe, getattr(i, of[1])) for i in made}) > len(recipes)]


def view_tables(results: Results) -> list[Table]:
    """The misaligned rates at each fixed narrow loss, the larger first, and at the end of training."""
    at_losses = [
        _view(f"matched-{i}", rows) for i, rows in enumerate(matched(results), 1) if rows
    ]  # runs on good data alone have none
    return [*at_losses, _view("end", summary(results))]


def _view(name: str, rows: Sequence[Row]) -> Table:
    if not rows:
        return Table(id=name, title="End of training", caption="", gap="no evaluated model")
    models, batches = {r.model for r in rows}, {r.batch_size for r in rows if r.recipe}
    first = [
        ("recipe", "recipe", ""),
        *([("model", "model", "")] if len(models) > 1 else []),
        *([("batch", "batch_size", "d")] if len(batches) > 1 else []),
        ("learning rate", "learning_rate", "g"),
        ("lambda", "spectral_lambda", "g"),
    ]
    columns = [*first, *RATES, ("runs", "runs", "d"), ("", "verdict", "")]

    def line(r: Row) -> tuple:
        settings = (
            (r.recipe or "(base)") + ", good data" * r.good,
            *([r.model] if len(models) > 1 else []),
            *([r.batch_size] if len(batches) > 1 else []),
            r.learning_rate,
            r.spectral_lambda,
        )
        return (*settings, *rates(r), r.cells if r.recipe else None, r.verdict)

    return table(name, rows[0].at.capitalize(), f"{_interval_of(rows)} {GATE}", columns, [line(r) for r in rows])


GATE = (
    f"Below {BROKEN_BELOW:.2f} coherent a model is broken, above {REFUSING_ABOVE:.2f} refused it refuses: its rates are printed, and nothing is "
    "said of them."
)


def _interval_of(rows: Sequence[Row]) -> str:
    seeds = {r.seeds for r in rows if r.recipe}
    if max(seeds, default=1) > 1:
        return "Mean over runs; intervals: other questions and other seeds (both variances, t with Satterthwaite's degrees of freedom)."
    return "Mean over runs; intervals: other questions alone (t, clusters less one); one seed says nothing of other trainings."


def rates(r: Row) -> tuple:
    """The values of `RATES`."""
    asked, coherent = per_cent(r.misaligned_of_asked), per_cent(r.misaligned_rate)
    return r.narrow_loss, *asked, *coherent, per_cent(r.coherent_rate)[0], r.norm, r.flatness_gap


def control_table(results: Results) -> Table | None:
    """Every arm against finished adapters scaled down; None where the preset rescales none."""
    found = gains(results)
    if not found:
        return None
    several = told_apart(found)
    columns = [
        ("recipe", "recipe", ""),
        *several,
        ("lambda", "spectral_lambda", "g"),
        ("at", "at", ""),
        ("misaligned of asked, %", "misaligned_of_asked_pct", ".1f"),
        ("of coherent, %", "misaligned_pct", ".1f"),
        ("coherent, %", "coherent_pct", ".1f"),
        ("control", "control", ""),
        ("its of asked, %", "control_of_asked_pct", ".1f"),
        ("its of coherent, %", "control_misaligned_pct", ".1f"),
        ("its coherent, %", "control_coherent_pct", ".1f"),
        ("its norm", "control_norm", ".2f"),
        ("less control, points", "less_control", "+z.1f"),
        ("95 %", "less_control_interval", ""),
        ("runs", "runs", "d"),
        ("", "verdict", ""),
    ]

    def line(g: Gain) -> tuple:
        mine = (per_cent(e)[0] for e in (g.own, g.own_of_coherent, g.own_coherent))
        theirs = (per_cent(e)[0] for e in (g.rescaled, g.rescaled_of_coherent, g.rescaled_coherent))
        return (
            g.recipe,
            *(getattr(g, name) for _, name, _ in several),
            g.spectral_lambda,
            g.at,
            *mine,
            g.control,
            *theirs,
            g.norm,
            *per_cent(g.difference, "+z.1f"),
            g.runs,
            g.verdict,
        )

    caption = (
        f"{beyond_a_smaller_update(found)} With the term on, the control is the same recipe without it, its finished adapters multiplied by the "
        "smallest scale that gives the loss or the coherence; without the term, those of the reference optimiser. Differences of all asked, "
        "paired by cluster and by seed."
    )
    return table("controls", "Beside the same adapters scaled down", caption, columns, [line(g) for g in found])


def adapters_table(results: Results) -> Table:
    """Every adapter at its end, with its counts."""
    several = told_apart(results.cells)
    columns = [
        ("dataset", "dataset", ""),
        ("recipe", "recipe", ""),
        *several,
        ("lambda", "spectral_lambda", "g"),
        ("seed", "seed", "d"),
        *RATES,
    ]
    columns += [("alignment", "alignment", ".1f"), *((o, o, "d") for o in OUTCOMES), ("CODE", "code", "d"), ("", "verdict", "")]

    def line(c) -> tuple:
        m, r = c.score.overall, row_of([c])
        counted = (m.counts[o] for o in OUTCOMES)
        first = (c.dataset or "base", c.recipe, *(getattr(c, name) for _, name, _ in several), c.spectral_lambda, c.seed)
        return (*first, *rates(r), m.mean_alignment.value, *counted, m.code, r.verdict)

    caption = "At the end of training. Intervals of one adapter: other questions alone."
    return table("cells", "Every adapter", caption, columns, [line(c) for c in results.cells])


def choices_table(choices: Sequence[Choice]) -> Table:
    """What was chosen, and on what."""
    several = told_apart(choices, SETTINGS[:2])
    columns = [
        ("recipe", "recipe", ""),
        *several,
        ("chosen", "chosen", ""),
        ("candidates: narrow loss", "candidates", ""),
        ("rule", "rule", ""),
    ]

    def line(c: Choice) -> tuple:
        what = "learning rate" if c.kind == "learning_rate" else "lambda"
        edge = " (on the edge of what was tried)" * c.edge
        of = "; ".join(f"{value}: {loss:.3f}" for value, loss in c.losses.items())
        return (
            c.recipe,
            *(getattr(c, name) for _, name, _ in several),
            (f"{what} {c.chosen:g}" if c.chosen is not None else "none: no candidate meets the rule") + edge,
            of,
            c.rule,
        )

    said = "Learning rates and lambdas are chosen on held-out narrow loss alone; no choice sees a misaligned rate."
    return table("choices", "What was chosen, and on what", said, columns, [line(c) for c in choices])


def paper_table() -> Table:
    """The paper's numbers, which ours are not expected to equal."""
    said = (
        '"Evil Spectra", arXiv:2606.31591, on Qwen3 models of 4B to 32B. P: stated in its abstract; S: independent readings of the paper agree. '
        "The models, data and judge differ from those above, so the numbers are not expected to be equal."
    )
    columns = [("finding", "claim", ""), ("value", "paper", ""), ("certainty", "provenance", "")]
    return table("paper", "What the paper found", said, columns, PAPER)
