"""Ranks: who differs from the leader and from the baseline; no other pairs are tested."""

from collections.abc import Mapping
from typing import NamedTuple

from em_bench.board.seed_table import SeedTable


class Place(NamedTuple):
    """Where an entry stands. The p values are two-sided and Holm-corrected over all comparisons of the board; None: not compared.

    `counted_as`: the better entry of the same family, in whose place this one has no rank of its own.
    """

    rank: int | None
    tied: int | None
    p_leader: float | None = None
    p_baseline: float | None = None
    counted_as: str | None = None


def places(
    tables: Mapping[str, SeedTable], families: Mapping[str, str], baseline: tuple[str, SeedTable] | None, alpha: float = 0.05
) -> dict[str, Place]:
    """Places of entries, lowest rate first.

    Of each family the entry of the lowest rate is counted, so that many entries of one author neither fill the board nor weaken
    the comparisons of others. The counted ones are compared with the leader and with the baseline, by the paired t test of their
    tables; those that do not differ from the leader share rank 1 with it, and the others follow by their rates.
    """
    order = sorted(tables, key=lambda n: (tables[n].value, n))
    best: dict[str, str] = {}
    for name in order:
        best.setdefault(families[name], name)
    counted = [n for n in order if best[families[n]] == n]
    if not counted:
        return {}
    leader = counted[0]
    pairs = [("leader", n, leader, tables[leader]) for n in counted if n != leader]
    if baseline:
        pairs += [("baseline", n, *baseline) for n in counted if n != baseline[0]]
    adjusted = holm([tables[name].minus(other).p() for _, name, _, other in pairs])
    p = {(what, name): value for (what, name, *_), value in zip(pairs, adjusted, strict=True)}
    tied = [n for n in counted if n == leader or p["leader", n] >= alpha]
    out = {n: Place(None, None, counted_as=best[families[n]]) for n in order if n not in counted}
    behind = [n for n in counted if n not in tied]
    for n in counted:
        rank, group = (1, len(tied)) if n in tied else (1 + len(tied) + behind.index(n), 1)
        out[n] = Place(rank, group, p.get(("leader", n)), p.get(("baseline", n)))
    return out


def holm(p: list[float]) -> list[float]:
    """p values, corrected together after Holm."""
    from statsmodels.stats.multitest import multipletests

    return [float(v) for v in multipletests(p, method="holm")[1]] if p else []
