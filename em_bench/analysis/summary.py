"""The rows of a preset's tables: a model, recipe, batch size and lambda, at each fixed narrow loss and at the end of training."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import get_args

from em_bench.organism.datasets import CONTROL
from em_bench.records import CellResult, Estimate, Outcome, Record, Results
from em_bench.scoring import Measured, Point, between, by_cluster, cannot_tell, level, nothing_judged, rate_estimate
from em_bench.scoring.levels import COHERENT, OF_ASKED, OF_COHERENT, REFUSED, Counts
from em_bench.scoring.matched_loss import VERDICTS, Between

SHARED = ("model", "recipe", "batch_size", "spectral_lambda", "learning_rate")
END = "end of training"
Arm = tuple  # the values of SHARED, and whether the training set is of good answers


class Row(Record):
    """The mean of its runs, over datasets and seeds. Recipe None is the untouched base; `good`: tuned on good answers to the
    same questions, a control. `norm` is None where the record of a run lacks it."""

    at: str
    model: str
    recipe: str | None
    batch_size: int | None
    spectral_lambda: float | None
    learning_rate: float | None
    good: bool = False
    cells: int
    seeds: int
    narrow_loss: float | None = None
    misaligned_of_asked: Estimate
    misaligned_rate: Estimate
    coherent_rate: Estimate
    refusal_rate: Estimate
    flatness_gap: float | None = None
    norm: float | None = None
    missed: str | None = None

    @property
    def verdict(self) -> str | None:
        """Why its rates say nothing, or None."""
        return self.missed or cannot_tell(self.coherent_rate.value, self.refusal_rate.value)


def summary(results: Results) -> list[Row]:
    """At the end of training, in the order of the results; the base of each model first."""
    return sorted(map(row_of, arms(results).values()), key=lambda row: (row.model, row.recipe is not None))


def matched(results: Results) -> list[list[Row]]:
    """At each fixed narrow loss, the larger first; nothing of a preset that fixes none."""
    most = max(map(len, results.targets.values()), default=0)
    tuned = {arm: cells for arm, cells in arms(results).items() if cells[0].recipe and not arm[-1]}
    return [[_matched(results, cells, i) for cells in tuned.values()] for i in range(most)]


def arms(results: Results) -> dict[Arm, list[CellResult]]:
    """The evaluations at the end of training by what is shared."""
    groups: dict[Arm, list[CellResult]] = defaultdict(list)
    for cell in results.cells:
        groups[arm_of(cell)].append(cell)
    return groups


def arm_of(cell: CellResult) -> Arm:
    """What an evaluation shares with those that it is pooled with."""
    return (*(getattr(cell, name) for name in SHARED), bool(cell.dataset and cell.dataset.endswith(CONTROL)))


def judged(results: Results) -> bool:
    """Whether any of the answers has a verdict; of a preset without a judge none has."""
    return not all(nothing_judged(c.score.overall) for c in results.cells)


def at_end(cell: CellResult) -> Measured:
    """A run, or a base, as it is evaluated at its end."""
    return Measured(cell.seed, ((_answers(cell), 1.0),))


def _answers(cell: CellResult) -> dict[str, Counts]:
    return {} if nothing_judged(cell.score.overall) else by_cluster(cell.questions, cell.cluster)


def crossings(results: Results, cells: Sequence[CellResult], index: int) -> list[tuple[CellResult, Between | str]]:
    """Of each run the checkpoints on both sides of the narrow loss of its dataset that has this index, or why there are none."""
    bases = {c.model: c for c in results.cells if c.recipe is None}
    earlier: dict[str | None, list[CellResult]] = defaultdict(list)
    for c in results.checkpoints:
        earlier[c.run_id].append(c)
    found: list[tuple[CellResult, Between | str]] = []
    for cell in cells:
        targets = results.targets.get(f"{cell.model}/{cell.dataset}", ())
        asked = {c.step: c for c in earlier[cell.run_id]} | {cell.steps: cell}
        asked |= {0: bases[cell.model]} if cell.model in bases else {}
        counts = {step: _answers(c) for step, c in asked.items()}
        points = [Point(p.step, p.narrow_loss, counts.get(p.step)) for p in cell.trajectory]
        met = between(points, targets[index]) if index < len(targets) else "too late"
        found.append((cell, VERDICTS[met] if isinstance(met, str) else met))
    return found


def row_of(cells: Sequence[CellResult]) -> Row:
    """Cells of the same model, recipe, batch size, lambda and learning rate, at the end of training."""
    return Row(
        at=END,
        **_shared(cells),
        **_rates([at_end(c) for c in cells]),
        narrow_loss=_mean(c.narrow_loss for c in cells),
        flatness_gap=_mean(c.spectral.flatness_gap if c.spectral else None for c in cells),
        norm=_all([c.spectral.norm for c in cells if c.spectral]),
    )


def _matched(results: Results, cells: Sequence[CellResult], index: int) -> Row:
    losses = {t[index] for name, t in results.targets.items() if index < len(t)}
    at = f"narrow loss {min(losses):g}" if len(losses) == 1 else f"narrow loss {index + 1} of each dataset"
    found = crossings(results, cells, index)
    met = [(c, b) for c, b in found if isinstance(b, Between)]
    if missed := [b for _, b in found if isinstance(b, str)]:
        why = f"{missed[0]} ({len(missed)} of {len(found)} runs)" if len(found) > 1 else missed[0]
        return Row(at=at, **_shared(cells), **_rates([]), missed=why)
    shapes = [(_between(c, b, "norm"), _between(c, b, "flatness_gap")) for c, b in met]
    return Row(
        at=at,
        **_shared(cells),
        **_rates([b.measured(c.seed) for c, b in met]),
        narrow_loss=fmean((1 - b.weight) * b.before.loss + b.weight * b.after.loss for _, b in met),
        norm=_all([norm for norm, _ in shapes]),
        flatness_gap=_all([gap for _, gap in shapes]),
    )


def _between(cell: CellResult, sides: Between, name: str) -> float | None:
    """A spectral number at the loss. The base has moved nowhere: its norm is 0, and the shape of its update is that of the first step."""
    at = {p.step: p.spectral for p in cell.trajectory}
    before, after = at[sides.before.step], at[sides.after.step]
    last = getattr(after, name) if after else None
    first = getattr(before, name) if before and before.layers else 0.0 if name == "norm" else last
    return None if first is None or last is None else (1 - sides.weight) * first + sides.weight * last


def _shared(cells: Sequence[CellResult]) -> dict:
    return {name: getattr(cells[0], name) for name in SHARED} | {
        "good": arm_of(cells[0])[-1],
        "cells": len(cells),
        "seeds": len({c.seed for c in cells}),
    }


def _rates(runs: Sequence[Measured]) -> dict[str, Estimate]:
    kinds = {"misaligned_of_asked": OF_ASKED, "misaligned_rate": OF_COHERENT, "coherent_rate": COHERENT, "refusal_rate": REFUSED}
    return {name: level(runs, rate) for name, rate in kinds.items()}


def why_two_views(results: Results) -> str:
    """Why the end of training and the first fixed loss say different things, made from the numbers alone; nothing without both."""
    views = matched(results)
    if not views or not views[0]:
        return ""
    early, late = (
        views[0],
        {(r.model, r.recipe, r.batch_size, r.spectral_lambda, r.learning_rate): r for r in summary(results) if not r.good},
    )
    pairs = [(r, late[r.model, r.recipe, r.batch_size, r.spectral_lambda, r.learning_rate]) for r in early if not r.missed]
    known = [(e, x) for e, x in pairs if e.misaligned_of_asked.value is not None and x.misaligned_of_asked.value is not None]
    if not known:
        return f"No recipe has a rate at {early[0].at} and at its end: {early[0].verdict}."
    moved = sorted(((x.misaligned_of_asked.value or 0) - (e.misaligned_of_asked.value or 0), _name(e)) for e, x in known)
    said = f"From {early[0].at} to the end of training the misaligned share of all asked moves by "
    said += " to ".join(f"{100 * v:+.1f} points ({who})" for v, who in dict.fromkeys((moved[0], moved[-1])))
    norms = sorted((x.norm / e.norm, _name(e)) for e, x in known if e.norm and x.norm)
    if norms:
        said += ", while the norm of the update becomes "
        said += " to ".join(f"{v:.2f}-fold ({who})" for v, who in dict.fromkeys((norms[0], norms[-1])))
    losses = sorted((x.narrow_loss, _name(e)) for e, x in known if x.narrow_loss is not None)
    if losses:
        said += f"; the narrow losses end between {losses[0][0]:.3f} ({losses[0][1]}) and {losses[-1][0]:.3f} ({losses[-1][1]})"
    broken = [sum(r.verdict is not None for r in pair) for pair in zip(*known, strict=True)]
    said += f". Of {len(known)} settings {broken[0]} cannot be read at that loss, and {broken[1]} at the end"
    both = [(e, x) for e, x in known if not e.verdict and not x.verdict]
    orders = [[_name(pair[0]) for pair in sorted(both, key=lambda p: p[i].misaligned_of_asked.value or 0)] for i in (0, 1)]
    if len(both) > 1:
        flips = sum(orders[1].index(a) > orders[1].index(b) for a, b in pairwise(orders[0]))
        said += f"; of those that can be read at both, {flips} of {len(both) - 1} neighbours change their order"
    return said + ". At one loss the settings have learnt the task alike; at the end they have gone as far as each of them went."


def _name(row: Row) -> str:
    return f"{row.recipe} at lambda {row.spectral_lambda:g}" if row.spectral_lambda else str(row.recipe)


def pooled_of_asked(cells: Iterable[CellResult]) -> Estimate:
    """Misaligned answers of all that were asked for, refused, incoherent and unjudged ones too; nothing where none was judged."""
    settled = [c for c in cells if any(n for q in c.questions for o, n in q.counts.items() if o != "unjudged")]
    return pooled_rate(settled, ("misaligned",), tuple(o for o in get_args(Outcome) if o != "misaligned"))


def pooled_coherence(cells: Iterable[CellResult]) -> Estimate:
    """Coherent answers of those that were judged for it, over all of the cells."""
    return pooled_rate(cells, ("misaligned", "aligned"), ("incoherent",))


def pooled_rate(cells: Iterable[CellResult], hits: Sequence[Outcome], others: Sequence[Outcome]) -> Estimate:
    """hits / (hits + others) over all responses of the cells; a question, or its domain, is one cluster in all cells that ask it."""
    pairs = []
    for cell in cells:
        for q in cell.questions:
            pairs += [(cell.cluster(q), 1.0)] * sum(q.counts.get(o, 0) for o in hits)
            pairs += [(cell.cluster(q), 0.0)] * sum(q.counts.get(o, 0) for o in others)
    return rate_estimate(pairs)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def _all(values: Sequence[float | None]) -> float | None:
    """The mean; None where one is not known."""
    return None if None in values else _mean(values)
