"""What an optimiser, or the spectral term, does beyond a smaller update: beside finished adapters rescaled to the same loss or coherence.

The control of an arm with the term is the same recipe without it; that of a recipe without it is the first of `REFERENCES` that the preset
has. At a loss the arm stands where its own training crosses it; at a coherence it is rescaled too. Both arms have the same
datasets and seeds; the difference is paired by cluster and by seed. Where one of the arm's runs is not there, nothing is said: those
that are left would be picked by how they went.
"""

from collections.abc import Sequence

from em_bench.analysis.summary import SHARED, Arm, arm_of, arms, at_end, crossings, row_of
from em_bench.records import CellResult, Estimate, Record, Rescaled, Results
from em_bench.scoring import Measured, cannot_tell, difference, level
from em_bench.scoring.levels import COHERENT, OF_ASKED, OF_COHERENT
from em_bench.scoring.matched_loss import Between

REFERENCES = ("adamw", "adam")  # as what others are compared with; provenance C
RECIPE, LAMBDA = SHARED.index("recipe"), SHARED.index("spectral_lambda")


class Gain(Record):
    """An arm less its control: shares of all asked. Norms are means."""

    at: str
    recipe: str
    model: str
    batch_size: int | None
    learning_rate: float | None
    spectral_lambda: float
    control: str
    runs: int
    own: Estimate
    own_of_coherent: Estimate
    own_coherent: Estimate
    rescaled: Estimate
    rescaled_of_coherent: Estimate
    rescaled_coherent: Estimate
    difference: Estimate
    norm: float | None = None
    verdict: str | None = None

    @property
    def term(self) -> bool:
        """Whether it is the spectral term's gain."""
        return self.spectral_lambda > 0


def gains(results: Results) -> list[Gain]:
    """Every arm against its control, at each loss and coherence that adapters were rescaled to; empty where none were."""
    groups = arms(results)
    plain = {arm[:LAMBDA] + arm[LAMBDA + 1 :]: arm for arm in groups if arm[LAMBDA] == 0}
    found = []
    for kind, target in sorted({(c.rescaled.kind, c.rescaled.target) for c in results.controls if c.rescaled}, reverse=True):
        for arm, cells in groups.items():
            if arm[RECIPE] is None or arm[-1]:
                continue
            of = _control_arm(arm, groups, plain)
            if of is not None and (gain := _gain(results, cells, of, kind, target)):
                found.append(gain)
    return found


def _control_arm(arm: Arm, groups: dict[Arm, list[CellResult]], plain: dict[tuple, Arm]) -> Arm | None:
    """The arm whose adapters are rescaled: of the recipe without the term, or of the reference; none for the reference itself."""
    if arm[LAMBDA]:
        same = [a for a in groups if a[LAMBDA] == 0 and not a[-1] and a[:LAMBDA] == arm[:LAMBDA]]
        return plain.get(arm[:LAMBDA] + arm[LAMBDA + 1 :]) or (same[0] if same else None)
    of = [
        a
        for name in REFERENCES
        for a in groups
        if a[RECIPE] == name and a[LAMBDA] == 0 and not a[-1] and (a[0], a[2]) == (arm[0], arm[2])
    ]
    return of[0] if of and of[0] != arm else None


def _gain(results: Results, cells: Sequence[CellResult], of: Arm, kind: str, target: float) -> Gain | None:
    controls = {_where(c): c for c in results.controls if arm_of(c) == of and _of(c, kind, target)}
    own = _own(results, cells, kind, target)
    both = [where for where in own if where in controls]
    if not both:
        return None
    runs = both if len(both) == len(cells) else []
    mine, theirs = [own[w] for w in runs], [at_end(controls[w]) for w in runs]
    coherent = [level(runs, COHERENT) for runs in (mine, theirs)]
    norm = row_of([controls[w] for w in runs]).norm if runs else None
    return Gain(
        at=f"narrow loss {target:g}" if kind == "loss" else f"coherence {target:g}",
        recipe=str(cells[0].recipe),
        model=cells[0].model,
        batch_size=cells[0].batch_size,
        learning_rate=cells[0].learning_rate,
        spectral_lambda=cells[0].spectral_lambda or 0.0,
        control=f"{of[RECIPE]}, rescaled",
        runs=len(both),
        own=level(mine, OF_ASKED),
        own_of_coherent=level(mine, OF_COHERENT),
        own_coherent=coherent[0],
        rescaled=level(theirs, OF_ASKED),
        rescaled_of_coherent=level(theirs, OF_COHERENT),
        rescaled_coherent=coherent[1],
        difference=difference(mine, theirs, OF_ASKED),
        norm=norm,
        verdict=next((why for e in coherent if (why := cannot_tell(e.value))), None)
        if runs
        else f"cannot tell: {len(both)} of {len(cells)} runs have both",
    )


def _own(results: Results, cells: Sequence[CellResult], kind: str, target: float) -> dict[tuple, Measured]:
    """The arm's runs at that loss, or rescaled to that coherence, by dataset and seed."""
    if kind == "coherence":
        own = arm_of(cells[0])
        return {_where(c): at_end(c) for c in results.controls if arm_of(c) == own and _of(c, kind, target)}
    found = {}
    for i in range(max(map(len, results.targets.values()), default=0)):
        for cell, met in crossings(results, cells, i):
            if isinstance(met, Between) and results.targets[f"{cell.model}/{cell.dataset}"][i] == target:
                found[_where(cell)] = met.measured(cell.seed)
    return found


def _where(cell: CellResult) -> tuple:
    return cell.dataset, cell.seed


def _of(cell: CellResult, kind: str, target: float) -> bool:
    said: Rescaled | None = cell.rescaled
    return said is not None and (said.kind, said.target) == (kind, target)


def beyond_a_smaller_update(found: Sequence[Gain]) -> str:
    """Whether flatness buys anything beyond a smaller update, in a sentence made from the numbers alone; nothing without controls."""
    terms = [g for g in found if g.term]
    if not terms:
        return ""
    told = [g for g in terms if g.verdict is None and g.difference.low is not None and g.difference.high is not None]
    less = [g for g in told if (g.difference.high or 0) < 0]
    more = [g for g in told if (g.difference.low or 0) > 0]
    counted = f"of {len(terms)} comparisons of the term with the same adapters scaled down"
    if not told:
        return f"Does flatness buy anything beyond a smaller update? Cannot tell: {counted}, none can be read."
    names = "; ".join(f"{g.recipe} at {g.at} {100 * (g.difference.value or 0):+.1f} points" for g in (*less, *more))
    verdict = (
        "Yes, in part"
        if less and not more
        else "No: it costs"
        if more and not less
        else "It differs"
        if less
        else "Not seen here"
    )
    return (
        f"Does flatness buy anything beyond a smaller update? {verdict}: {counted}, {len(told)} can be read, {len(less)} misalign less "
        f"and {len(more)} more, their 95 % intervals without 0{f' ({names})' if names else ''}."
    )
