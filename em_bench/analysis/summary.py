"""The table of a preset: one row a model, recipe, batch size and lambda, pooled over datasets and seeds."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from em_bench.records import CellResult, Estimate, Outcome, Record, Results
from em_bench.scoring import nothing_judged, rate_estimate


class Row(Record):
    """Pooled over its cells. Recipe None is the untouched base."""

    model: str
    recipe: str | None
    batch_size: int | None
    spectral_lambda: float | None
    learning_rate: float | None
    cells: int
    narrow_loss: float | None
    misaligned_rate: Estimate
    coherent_rate: Estimate
    frobenius_nuclear: float | None


def summary(results: Results) -> list[Row]:
    """The rows in the order of the results; the base of each model first."""
    groups: dict[tuple, list[CellResult]] = defaultdict(list)
    for cell in results.cells:
        groups[cell.model, cell.recipe, cell.batch_size, cell.spectral_lambda, cell.learning_rate].append(cell)
    return sorted((_row(key, cells) for key, cells in groups.items()), key=lambda row: (row.model, row.recipe is not None))


def judged(results: Results) -> bool:
    """Whether any of the answers has a verdict; of a preset without a judge none has."""
    return not all(nothing_judged(c.score.overall) for c in results.cells)


def _row(key: tuple, cells: Sequence[CellResult]) -> Row:
    model, recipe, batch_size, spectral_lambda, learning_rate = key
    return Row(
        model=model,
        recipe=recipe,
        batch_size=batch_size,
        spectral_lambda=spectral_lambda,
        learning_rate=learning_rate,
        cells=len(cells),
        narrow_loss=_mean(c.narrow_loss for c in cells),
        misaligned_rate=pooled_rate(cells, ("misaligned",), ("aligned",)),
        coherent_rate=pooled_rate(cells, ("misaligned", "aligned"), ("incoherent",)),
        frobenius_nuclear=_mean(c.spectral.frobenius_nuclear if c.spectral else None for c in cells),
    )


def pooled_rate(cells: Iterable[CellResult], hits: Sequence[Outcome], others: Sequence[Outcome]) -> Estimate:
    """hits / (hits + others) over all responses of the cells; a question is one cluster in all cells that ask it."""
    pairs = []
    for cell in cells:
        for q in cell.questions:
            pairs += [(q.cluster, 1.0)] * sum(q.counts.get(o, 0) for o in hits)
            pairs += [(q.cluster, 0.0)] * sum(q.counts.get(o, 0) for o in others)
    return rate_estimate(pairs)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None
