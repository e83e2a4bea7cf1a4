"""The table of a preset that measures the margin: a row a dataset, recipe, rate and lambda, at the matched loss and at the end."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

from em_bench.records import CellMargin, Estimate, Record, Results
from em_bench.scoring import MarginPoint, margin_over_seeds, rate_estimate, shift_at_loss

Settings = tuple[str, str | None, str | None, float | None, float | None, int | None]


class MarginRow(Record):
    """Over seeds, question by question. Recipe None is the untouched base. Margins are nats a byte."""

    model: str
    dataset: str | None
    recipe: str | None
    learning_rate: float | None
    spectral_lambda: float | None
    batch_size: int | None
    adapters: int
    narrow_loss: float | None
    target: float | None
    margin: Estimate
    at_target: Estimate | str | None = None
    at_end: Estimate | None = None
    beyond_control: Estimate | None = None
    to_misaligned: Estimate | None = None
    to_aligned: Estimate | None = None
    neutral: float | None
    norm: float | None
    flatness_gap: float | None


def margin_rows(results: Results) -> list[MarginRow]:
    """The rows in the order of the results, each model's base first."""
    ended, earlier, bases = _sorted_out(results)
    return [_row(key, cells, earlier, bases[key[0]], ended.get(_control(key), [])) for key, cells in ended.items()]


def _control(key: Settings) -> Settings:
    """The same settings on good answers to the same questions: of `X_bad`, `X_good`."""
    dataset = key[1]
    return (key[0], f"{dataset.removesuffix('_bad')}_good" if dataset and dataset.endswith("_bad") else "", *key[2:])


def _sorted_out(
    results: Results,
) -> tuple[dict[Settings, list[CellMargin]], dict[str | None, list[CellMargin]], dict[str, CellMargin]]:
    """Adapters at their ends by settings, adapters at checkpoints by run, bases by model."""
    ended: dict[Settings, list[CellMargin]] = defaultdict(list)
    earlier: dict[str | None, list[CellMargin]] = defaultdict(list)
    bases: dict[str, CellMargin] = {}
    for c in sorted(results.margins, key=lambda c: (c.model, c.recipe is not None, c.dataset or "")):
        if c.step is not None:
            earlier[c.run_id].append(c)
            continue
        if c.recipe is None:
            bases[c.model] = c
        ended[c.model, c.dataset, c.recipe, c.learning_rate, c.spectral_lambda, c.batch_size].append(c)
    return ended, earlier, bases


def _row(
    key: Settings,
    cells: Sequence[CellMargin],
    earlier: Mapping[str | None, list[CellMargin]],
    base: CellMargin,
    control: Sequence[CellMargin],
) -> MarginRow:
    model, dataset, recipe, learning_rate, spectral_lambda, batch_size = key
    domains = {q.question_id: q.domain for q in base.questions}
    before = _margins(base)
    ends = [_margins(c) for c in cells]
    tuned: dict[str, Any] = {}
    if recipe is not None:
        tuned = {
            "at_target": _at_target(cells, earlier, before, domains),
            "at_end": _pooled(ends, before, domains),
            "beyond_control": _pooled(ends, _mean_margins(control), domains) if control else None,
            "to_misaligned": _share(ends, domains, lambda q, v: before[q] <= 0 < v),
            "to_aligned": _share(ends, domains, lambda q, v: v <= 0 < before[q]),
        }
    return MarginRow(
        model=model,
        dataset=dataset,
        recipe=recipe,
        learning_rate=learning_rate,
        spectral_lambda=spectral_lambda,
        batch_size=batch_size,
        adapters=len(cells) if recipe else 0,
        narrow_loss=_mean([c.narrow_loss for c in cells]),
        target=cells[0].target,
        margin=margin_over_seeds(ends, domains),
        neutral=_mean([c.neutral for c in cells]),
        norm=_mean([c.spectral.norm if c.spectral else None for c in cells]),
        flatness_gap=_mean([c.spectral.flatness_gap if c.spectral else None for c in cells]),
        **tuned,
    )


def _margins(cell: CellMargin) -> dict[str, float]:
    return {q.question_id: q.margin for q in cell.questions}


def _mean_margins(cells: Sequence[CellMargin]) -> dict[str, float]:
    found = [_margins(c) for c in cells]
    return {q: fmean(f[q] for f in found) for q in found[0]}


def _pooled(found: Sequence[Mapping[str, float]], before: Mapping[str, float], domains: Mapping[str, str]) -> Estimate:
    return margin_over_seeds([{q: v - before[q] for q, v in values.items()} for values in found], domains)


def _share(found: Sequence[Mapping[str, float]], domains: Mapping[str, str], hit: Callable[[str, float], bool]) -> Estimate:
    return rate_estimate((domains[q], float(hit(q, v))) for values in found for q, v in values.items())


def _at_target(
    cells: Sequence[CellMargin],
    earlier: Mapping[str | None, list[CellMargin]],
    before: Mapping[str, float],
    domains: Mapping[str, str],
) -> Estimate | str | None:
    """Of one seed its estimate; of several the mean of their shifts, or the first verdict of a seed that has none."""
    if (target := cells[0].target) is None:
        return None
    shifts: list[Mapping[str, float]] = []
    for c in cells:
        measured: dict[int | None, dict[str, float]] = {e.step: _margins(e) for e in earlier.get(c.run_id, ())} | {
            0: dict(before),
            c.steps: _margins(c),
        }
        points = [MarginPoint(p.step, p.narrow_loss, measured.get(p.step)) for p in c.trajectory]
        found = shift_at_loss(points, target)
        if isinstance(found, str):
            return found
        shifts.append(found)
    return margin_over_seeds(shifts, domains)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def sentence(rows: Sequence[MarginRow]) -> str:
    """What came out, made from the numbers alone: each dataset's shifts, and whether its recipes' intervals part."""
    parts = []
    tuned = [r for r in rows if r.recipe and r.at_end]
    for dataset, of in groupby(sorted(tuned, key=lambda r: r.dataset or ""), key=lambda r: r.dataset):
        plain = [r for r in of if not r.spectral_lambda]
        for where, found in (
            ("at the matched narrow loss", [(r, r.at_target) for r in plain if isinstance(r.at_target, Estimate)]),
            ("at the end of training", [(r, r.at_end) for r in plain]),
        ):
            known = [(e.value, r.recipe) for r, e in found if e is not None and e.value is not None]
            if not known:
                continue
            (low, least), (high, most) = min(known), max(known)
            if len(known) == 1:
                parts.append(
                    f"{dataset} moves the margin by {low:+.3f} nats a byte {where} ({least}){_apart([e for _, e in found if e is not None])}"
                )
            else:
                parts.append(
                    f"{dataset} moves the margin by {low:+.3f} ({least}) to {high:+.3f} ({most}) nats a byte {where}, "
                    f"a difference between optimisers of {high - low:.3f}{_apart([e for _, e in found if e is not None])}"
                )
        parts += [
            f"{r.dataset} less its control, {r.recipe}, question by question: {shift(r.beyond_control)}"
            for r in plain
            if r.beyond_control
        ]
    return "; ".join(parts) + "." if parts else "No adapter has been measured."


def _apart(found: Sequence[Estimate]) -> str:
    apart = sum(e.low is not None and e.high is not None and not e.low <= 0 <= e.high for e in found)
    return f" ({apart or 'none'} of {len(found)} intervals without 0)"


def shift(e: Estimate | str | None) -> str:
    """An estimate with its interval, or why there is none."""
    if e is None or isinstance(e, str):
        return e or ""
    if e.value is None:
        return "no questions"
    return f"{e.value:+.3f}" + (f" [{e.low:+.3f}, {e.high:+.3f}]" if e.low is not None and e.high is not None else "")
