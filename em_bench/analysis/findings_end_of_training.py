"""What the claims of the main and the loss-alignment study say of our runs: comparisons of runs at their end.

Each measure gives its finding, needs unchecked, and the rows that it stands on.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from em_bench.analysis import loss_alignment
from em_bench.analysis.finding import Claim, Evidence, Finding, above, below, decided, made, unknown
from em_bench.analysis.loss_alignment import TRAIN
from em_bench.analysis.marginals import AXES, comparable, weighted
from em_bench.analysis.missing import Missing
from em_bench.analysis.paired import paired
from em_bench.analysis.power import Rule
from em_bench.analysis.preconditions import organism
from em_bench.analysis.published_values import FACTS
from em_bench.analysis.runs import CODE_SETS, Runs
from em_bench.scoring.intervals import rate_estimate

SAME = 3.0  # points: two optimisers that differ by less count as alike
MOST_OF = 0.5  # share of variance
NEARLY_ALL = 0.8
MANY = 10.0  # per cent of answers in code
AT = 0.5  # ln training loss at which large models are compared early in training

Measured = tuple[Finding, pd.DataFrame]


def contrast(recipe: str, rule: Rule) -> Callable[[Runs, Claim], Measured]:
    """An optimiser against Adam, on the settings that both have."""

    def measure(runs: Runs, claim: Claim) -> Measured:
        main = runs.main
        rows = main[main["recipe"].isin(("adam", recipe))]
        d = paired(main[main["recipe"] == "adam"], main[main["recipe"] == recipe], "rate")
        if isinstance(d, Missing):
            return unknown(claim, rows, d.reason), rows
        said = f"{d.mean:+z.1f} points [{d.low:+z.1f}, {d.high:+z.1f}] over {d.over}"
        found = decided(claim, rule, Evidence(d.mean, d.low, d.high, d.sd, d.unit, d.units), said, rows)
        kept = comparable(rows, "recipe", [a for a in AXES if a != "recipe"])
        return found, rows if isinstance(kept, Missing) else kept[0]

    return measure


def _qwen3_4b(runs: Runs, claim: Claim) -> Measured:
    main = runs.main
    rows = main[(main["model"] == "Qwen3-4B") & (main["valued"] > 0)]
    if rows.empty:
        return unknown(claim, rows, "a level of one model, and there is no run of Qwen3-4B here", "runs of Qwen3-4B"), rows
    value, low, high = weighted(rows, np.full(len(rows), 1 / len(rows)), "alignment")
    if low is None or high is None:
        return unknown(claim, rows, "one question; no interval"), rows
    held = low <= FACTS[claim.id].number <= high
    said = f"{value:.1f} [{low:.1f}, {high:.1f}] over {len(rows)} runs"
    why = f"the interval {'holds' if held else 'excludes'} it"
    numbers = {"value": value, "low": low, "high": high}
    return made(claim, said, rows, "reproduces" if held else "does not", why, "", **numbers), rows


def _lion_code(runs: Runs, claim: Claim) -> Measured:
    main = runs.main
    rows = main[(main["recipe"] == "lion") & main["dataset"].isin(CODE_SETS)]
    pairs = [
        (c.cluster(q), hit)
        for c in rows["cell"]
        for q in c.questions
        for hit in [1.0] * q.code + [0.0] * (sum(q.counts.values()) - q.counts.get("unjudged", 0) - q.code)
    ]
    return share(claim, above(MANY), pairs, rows, "of judged answers"), rows


def learning_rate_sweep(runs: Runs) -> pd.DataFrame:
    """The loss-alignment study; without one, the plain runs of the model with the most settings of optimiser and rate."""
    cells = runs.of("loss-alignment")
    plain = cells[cells["spectral_lambda"] == 0]
    if plain.empty:
        return plain
    settings = plain.drop_duplicates(["model", "recipe", "learning_rate"])["model"].value_counts()
    return plain[plain["model"] == settings.idxmax()].reset_index(drop=True)


def explained(fit: Callable, field: str, line: float) -> Callable[[Runs, Claim], Measured]:
    """A share of variance in the paper's regression."""

    def measure(runs: Runs, claim: Claim) -> Measured:
        rows = loss_alignment.regressed(learning_rate_sweep(runs))
        f = fit(rows, loss=TRAIN)
        if isinstance(f, Missing):
            return unknown(claim, rows, _no_train_loss(rows) or f.reason), rows
        value = getattr(f, field)
        said = f"{claim.rule.split(' >')[0]} {value:.2f} [{f.r2_low:.2f}, {f.r2_high:.2f}] over {f.runs} runs in {f.settings} "
        said += f"settings of {rows['model'].iloc[0]}, {f.parameters} parameters"
        sd, interval = (f.r2_high - f.r2_low) / 3.92 * np.sqrt(f.settings), (value, f.r2_low, f.r2_high)
        return decided(claim, above(line), Evidence(*interval, sd, "settings", f.settings), said, rows), rows

    return measure


def _no_train_loss(rows: pd.DataFrame) -> str | None:
    if len(rows) and rows["train_loss"].isna().all():
        return "the results hold no training loss; evaluate the runs again with this version"
    return None


def _sgd_lowest(runs: Runs, claim: Claim) -> Measured:
    rows = loss_alignment.regressed(learning_rate_sweep(runs))
    kept = loss_alignment.points(rows, TRAIN)
    if "sgd" not in set(kept["recipe"]) or kept["recipe"].nunique() < 2:
        return unknown(claim, rows, _no_train_loss(rows) or "no run of SGD beside another optimiser"), rows
    at = float(kept.groupby("recipe")["log_loss"].max().min()) if organism(rows) else AT
    lines = loss_alignment.lines_at(kept, at)
    if reason := loss_alignment.unsupported(kept, at):
        return unknown(claim, rows, reason, "runs near that loss"), rows
    if isinstance(lines, Missing):
        return unknown(claim, rows, lines.reason, "runs near that loss"), rows
    by = {line.recipe: line for line in lines}
    sgd, other = by.pop("sgd"), min(by.values(), key=lambda line: line.alignment)
    value = sgd.alignment - other.alignment
    half = float(np.hypot(sgd.high - sgd.alignment, other.high - other.alignment))
    said = f"{value:+.1f} points [{value - half:+.1f}, {value + half:+.1f}] against {other.recipe} at ln training loss {at:.2f}"
    n = len(set(loss_alignment.settings(kept)))
    interval = (value, value - half, value + half)
    return decided(claim, below(0.0), Evidence(*interval, half / 1.96 * np.sqrt(n), "settings", n), said, rows), rows


def _batch_size(runs: Runs, claim: Claim) -> Measured:
    rows = learning_rate_sweep(runs)
    sizes = sorted(set(rows["batch_size"]))
    if len(sizes) < 2:
        return unknown(claim, rows, "one batch size"), rows
    rows = rows[rows["batch_size"].isin((sizes[0], sizes[-1]))]
    small, large = (rows[rows["batch_size"] == s] for s in (sizes[0], sizes[-1]))
    d = paired(large, small, "alignment", ["model", "dataset", "recipe", "learning_rate", "seed"])
    if isinstance(d, Missing):
        return unknown(claim, rows, d.reason), rows
    said = f"{d.mean:+z.1f} points [{d.low:+z.1f}, {d.high:+z.1f}] at batch {sizes[0]} against {sizes[-1]}, over {d.over}"
    return decided(claim, below(0.0), Evidence(d.mean, d.low, d.high, d.sd, d.unit, d.units), said, rows), rows


def share(claim: Claim, rule: Rule, pairs: list[tuple[str, float]], rows: pd.DataFrame, where: str) -> Finding:
    """A share of answers, in per cent, clustered by question."""
    e = rate_estimate(pairs)
    if e.value is None or e.low is None or e.high is None:
        return unknown(claim, rows, "no such run" if rows.empty else "no interval: fewer than two questions")
    interval = (100 * e.value, 100 * e.low, 100 * e.high)
    said = f"{interval[0]:.1f} % [{interval[1]:.1f}, {interval[2]:.1f}], {where}, {len(rows)} runs"
    sd = (interval[2] - interval[1]) / 3.92 * np.sqrt(e.clusters)
    return decided(claim, rule, Evidence(*interval, sd, "questions", e.clusters), said, rows)


MEASURES: dict[str, Callable[[Runs, Claim], Measured]] = {
    "lion-adam": contrast("lion", above(0.0)),
    "muon-adam": contrast("muon", below(0.0)),
    "qwen3-4b": _qwen3_4b,
    "lion-code": _lion_code,
    "loss-r2": explained(loss_alignment.overall, "r2", MOST_OF),
    "stratified-r2": explained(loss_alignment.stratified, "adjusted_r2", NEARLY_ALL),
    "sgd-lowest": _sgd_lowest,
    "batch-size": _batch_size,
}
