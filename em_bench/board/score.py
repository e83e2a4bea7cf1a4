"""An entry's score, independent of who else has entered: rates at each loss and at the end, gates, differences to the baseline."""

from collections.abc import Mapping, Sequence
from math import fsum
from typing import NamedTuple

import numpy as np

from em_bench.board.benchmark import JudgeRule, Tier
from em_bench.board.entry import Entry, EntryCell
from em_bench.board.entry_score import CellScore, EntryScore, OtherJudge, RunScore, ViewScore
from em_bench.board.gates import gates_of
from em_bench.board.seed_table import Interval, SeedTable, mean_table, table_of
from em_bench.board.views import RANKED, VIEWS, PointScore, View, evaluated_of, mean_point, points_of
from em_bench.data.questions import known_domains
from em_bench.scoring.calibration import ReferenceMap, reference_map


class Scored(NamedTuple):
    """A score and the tables that comparisons are made from; None too where another judge's cannot be compared."""

    score: EntryScore
    rate: SeedTable | None
    end: SeedTable | None


def score_entry(entry: Entry, tier: Tier) -> Scored:
    """The score of one entry by itself, on the scale of the tier's judge where there is a way to it. Raises UserError where a file of
    the entry cannot be read."""
    mapped = None
    if tier.successor and judge_of(entry, tier) != tier.judge:
        record = tier.successor.calibration
        mapped = reference_map(record) if record else "no calibration of the two judges is published"
    own = _scored(entry, tier, None)
    if mapped is None:
        return own
    by = mapped if isinstance(mapped, ReferenceMap) else None
    found = _scored(entry, tier, by) if by else Scored(own.score, None, None)
    other = OtherJudge(model=tier.asks.model, rate=own.score.rate, problem=None if by else str(mapped))
    score = found.score.model_copy(update={"other_judge": other})
    return found._replace(score=score.model_copy(update={"gates": gates_of(score, None, tier)}))


def judge_of(entry: Entry, tier: Tier) -> JudgeRule:
    """The rule that an entry's judge falls under, its first evaluation's; the tier's own where it falls under none."""
    names = sorted(entry.manifest.evaluations)
    first = entry.evaluation(names[0]).verdicts[0][0].judge if names and tier.successor else None
    return tier.asks if first and tier.asks.unlike(first) is None else tier.judge


def _scored(entry: Entry, tier: Tier, by: ReferenceMap | None) -> Scored:
    domains = known_domains(tier.questions.name)
    by_cell: dict[tuple[str, str], list[EntryCell]] = {key: [] for key in tier.cells}
    for cell in entry.manifest.cells:
        by_cell[cell.model, cell.dataset].append(cell)
    cells: list[CellScore] = []
    tables: dict[View, list[SeedTable | None]] = {view: [] for view in VIEWS}
    for (model, dataset), found in by_cell.items():
        losses = tier.losses_of(model, dataset)
        found = sorted(found, key=lambda c: c.seed)
        points = {c.seed: points_of(entry.log(c.run_id), evaluated_of(entry, c), losses, domains, tier) for c in found}
        views: dict[View, ViewScore | None] = {}
        for view in VIEWS:
            known = [p for at in points.values() if (p := at[view])]
            table = table_of(np.array([p.shares for p in known]), by) if len(known) == len(tier.seeds) else None
            tables[view].append(table)
            views[view] = _view(table, [p.score for p in known])
        runs = [
            RunScore(seed=c.seed, run_id=c.run_id, points={v: p and p.score for v, p in points[c.seed].items()}) for c in found
        ]
        cells.append(CellScore(model=model, dataset=dataset, losses=losses, views=views, runs=runs))
    means = {view: mean_table(tables[view]) for view in VIEWS}
    rate = mean_table([means[view] for view in RANKED])
    return Scored(_summary(entry, tier, cells, means, rate), rate, means["end"])


def _view(table: SeedTable | None, points: Sequence[PointScore]) -> ViewScore | None:
    if table is None:
        return None
    return ViewScore(rate=table.rate(sum(p.asked for p in points)), beside=mean_point(points))


def _summary(
    entry: Entry, tier: Tier, cells: list[CellScore], means: Mapping[View, SeedTable | None], rate: SeedTable | None
) -> EntryScore:
    runs = [r for c in cells for r in c.runs]
    at = {view: [p for r in runs if (p := r.points[view])] for view in VIEWS}
    expected = len(tier.cells) * len(tier.seeds)
    reached = sum(all(r.points[view] for view in RANKED) for r in runs)
    there = [p for view in (*RANKED, "end") for p in at[view]]
    asked = sum(p.asked for p in there)
    score = EntryScore(
        learned=reached == expected,
        reached=reached,
        runs=expected,
        rate=rate and rate.rate(sum(p.asked for view in RANKED for p in at[view])),
        views={view: _view(means[view], at[view]) for view in VIEWS},
        unjudged=sum(p.unjudged * p.asked for p in there) / asked if asked else 1.0,
        cost_s=fsum(r.wall_s for r in entry.runs.values()),
        cells=cells,
    )
    return score.model_copy(update={"gates": gates_of(score, None, tier)})


def compared(own: Scored, baseline: Scored | None, tier: Tier) -> EntryScore:
    """The score with its differences to the baseline and its gates."""

    def minus(ours: SeedTable | None, theirs: SeedTable | None) -> Interval | None:
        return ours.minus(theirs).difference() if ours and theirs else None

    changed = {
        "difference": minus(own.rate, baseline and baseline.rate),
        "end_difference": minus(own.end, baseline and baseline.end),
        "gates": gates_of(own.score, baseline.score if baseline else None, tier),
    }
    return own.score.model_copy(update=changed)
