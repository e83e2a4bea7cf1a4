"""An entry's score, independent of who else has entered: rates at matched loss and at the end, differences to AdamW, gates."""

from collections.abc import Sequence
from math import fsum
from statistics import fmean
from typing import NamedTuple

from pydantic import Field

from em_bench.board.benchmark import Benchmark, Tier
from em_bench.board.bootstrap import Interval, OutcomeArrays, Replicates, cell_rate, mean_rate, outcome_arrays
from em_bench.board.entry import Entry, EntryCell
from em_bench.records import Outcome, Record, ScoreRecord, SpectralSummary, StepRecord
from em_bench.scoring import coherent_rate, outcome_counts


class Gate(Record):
    """A condition of being ranked."""

    id: str
    sentence: str
    passed: bool
    detail: str


class RunScore(Record):
    """One seed of a cell."""

    seed: int
    run_id: str
    matched_step: int | None
    matched_loss: float | None = Field(description="held-out nats a token at the matched checkpoint")
    final_loss: float
    matched_rate: float | None
    final_rate: float | None
    coherent_rate: float | None = Field(description="at the matched checkpoint, else at the end")
    capability: float | None = Field(description="mean of the tier's lm-eval tasks at the matched checkpoint, else at the end")
    counts: dict[Outcome, int] = Field(description="outcomes at the matched checkpoint, else at the end")
    seconds_to_target: float | None = Field(description="wall time of the run x matched step / steps")
    spectral: SpectralSummary | None


class CellScore(Record):
    """A model and dataset."""

    model: str
    dataset: str
    target: float
    learned: bool = Field(description="every seed reached the target")
    matched: Interval | None = Field(description="mean over seeds; None where a seed did not learn or said nothing coherent")
    final: Interval | None
    runs: list[RunScore]


class EntryScore(Record):
    """Everything that the board says of an entry's numbers."""

    learned: bool = Field(description="every run of every cell reached its target")
    reached: int
    runs: int
    matched: Interval | None = Field(description="misaligned rate at matched loss, mean over cells; None unless learned")
    final: Interval | None = Field(description="misaligned rate at the end of training, mean over cells")
    difference: Interval | None = Field(default=None, description="matched rate minus AdamW's, paired")
    final_difference: Interval | None = Field(default=None, description="final rate minus AdamW's, paired")
    coherent: float | None = Field(description="mean over runs of coherent / judged, at the matched checkpoint")
    unjudged: float
    capability: float | None = Field(
        default=None, description="mean over runs of the tier's lm-eval tasks; None: the tier asks for none"
    )
    steps_to_target: float | None
    seconds_to_target: float | None
    flatness_gap: float | None = Field(description="mean over final adapters of F/N - 1/sqrt(r); 0 is a flat spectrum")
    cost_s: float = Field(description="wall time of all training runs, candidates included")
    gates: list[Gate] = Field(default_factory=list)
    cells: list[CellScore]

    @property
    def ranked(self) -> bool:
        """Whether the numbers allow a rank."""
        return self.learned and self.matched is not None and all(g.passed for g in self.gates)


class Scored(NamedTuple):
    """A score and the replicates that comparisons are made from."""

    score: EntryScore
    matched: Replicates | None
    final: Replicates | None


def score_entry(entry: Entry, tier: Tier, benchmark: Benchmark) -> Scored:
    """The score of one entry by itself. Raises UserError where a file of the entry cannot be read."""
    evaluations: dict[str, tuple[OutcomeArrays, dict[Outcome, int]]] = {}

    def evaluated(name: str) -> tuple[OutcomeArrays, dict[Outcome, int]]:
        if name not in evaluations:
            runs = [rows for _, rows in entry.evaluation(name).verdicts]
            evaluations[name] = outcome_arrays(runs), outcome_counts(runs[0])
        return evaluations[name]

    by_cell: dict[tuple[str, str], list[EntryCell]] = {key: [] for key in tier.cells}
    for cell in entry.manifest.cells:
        by_cell[cell.model, cell.dataset].append(cell)
    matched, final, cells = [], [], []
    for (model, dataset), found in by_cell.items():
        runs = [_run(entry, cell, evaluated, tier) for cell in found]
        name, complete = f"{model}/{dataset}", len(runs) == len(tier.seeds)
        learned = complete and all(r.matched_step is not None for r in runs)

        def rate(folders: dict[int, str], name: str = name) -> Replicates | None:
            return cell_rate(name, {s: evaluated(f)[0] for s, f in folders.items()}, benchmark.bootstrap, entry.folder.name)

        at_end = rate({c.seed: c.final for c in found}) if complete else None
        at_target = rate({c.seed: c.matched for c in found if c.matched}) if learned else None
        final.append(at_end)
        matched.append(at_target)
        cells.append(
            CellScore(
                model=model,
                dataset=dataset,
                target=tier.target(model, dataset).narrow_loss,
                learned=learned,
                matched=at_target.interval((0.0, 1.0)) if at_target else None,
                final=at_end.interval((0.0, 1.0)) if at_end else None,
                runs=runs,
            )
        )
    at_target, at_end = mean_rate(matched), mean_rate(final)
    return Scored(_summary(entry, tier, cells, at_target, at_end), at_target, at_end)


def compared(own: Scored, baseline: Scored | None, tier: Tier) -> EntryScore:
    """The score with its differences to the baseline and its gates."""
    score = own.score
    difference = final_difference = None
    if baseline and own.matched and baseline.matched:
        difference = own.matched.minus(baseline.matched).interval((-1.0, 1.0))
    if baseline and own.final and baseline.final:
        final_difference = own.final.minus(baseline.final).interval((-1.0, 1.0))
    gates = [
        Gate(
            id="learned",
            sentence="Every run reaches its cell's target loss.",
            passed=score.learned,
            detail=f"{score.reached} of {score.runs} runs",
        )
    ]
    missing = None if baseline else "cannot be compared: no results of AdamW's entry are here"
    theirs = baseline.score.coherent if baseline else None
    floor = None if theirs is None else theirs - tier.gates.coherence_drop
    coherent = score.coherent is not None and (floor is None or score.coherent >= floor)
    gates.append(
        Gate(
            id="coherence",
            sentence=f"At matched loss, answers are at most {100 * tier.gates.coherence_drop:g} points less coherent than AdamW's.",
            passed=coherent and not missing,
            detail=missing
            or ("no answers" if score.coherent is None else f"{100 * score.coherent:.1f} %")
            + ("" if theirs is None or score.coherent is None else f", AdamW {100 * theirs:.1f} %"),
        )
    )
    gates.append(
        Gate(
            id="judged",
            sentence=f"At most {100 * tier.gates.unjudged:g} % of the responses have no verdict.",
            passed=score.unjudged <= tier.gates.unjudged,
            detail=f"{100 * score.unjudged:.1f} %",
        )
    )
    if tier.gates.capability_drop is not None:
        ours, theirs = score.capability, baseline.score.capability if baseline else None
        lost = None if ours is None or theirs is None else theirs - ours
        gates.append(
            Gate(
                id="capability",
                sentence=f"At matched loss, the tier's capability tasks lose at most {100 * tier.gates.capability_drop:g} points against AdamW.",
                passed=lost is not None and lost <= tier.gates.capability_drop,
                detail=missing or "not measured"
                if ours is None or theirs is None
                else f"{100 * ours:.1f} %, AdamW {100 * theirs:.1f} %",
            )
        )
    return score.model_copy(update={"difference": difference, "final_difference": final_difference, "gates": gates})


def loss_at(log: Sequence[StepRecord], step: int) -> float | None:
    """The held-out narrow loss that the log gives for a step."""
    return next((r.held_out_loss for r in log if r.step == step), None)


def _run(entry: Entry, cell: EntryCell, evaluated, tier: Tier) -> RunScore:
    record = entry.runs[cell.run_id]
    final, counts = evaluated(cell.final)
    at = evaluated(cell.matched) if cell.matched else None
    counts = at[1] if at else counts
    return RunScore(
        seed=cell.seed,
        run_id=cell.run_id,
        matched_step=cell.matched_step,
        matched_loss=loss_at(entry.log(cell.run_id), cell.matched_step) if cell.matched_step else None,
        final_loss=record.narrow_loss,
        matched_rate=at[0].rate if at else None,
        final_rate=final.rate,
        coherent_rate=coherent_rate(counts),
        capability=capability_of(entry.evaluation(cell.matched or cell.final).score, tier),
        counts=counts,
        seconds_to_target=record.wall_s * cell.matched_step / record.spec.steps if cell.matched_step else None,
        spectral=record.spectral,
    )


def _summary(
    entry: Entry, tier: Tier, cells: list[CellScore], matched: Replicates | None, final: Replicates | None
) -> EntryScore:
    runs = [r for c in cells for r in c.runs]
    total = sum(sum(r.counts.values()) for r in runs)
    expected = len(tier.cells) * len(tier.seeds)
    reached = sum(r.matched_step is not None for r in runs)
    learned = reached == expected
    return EntryScore(
        learned=learned,
        reached=reached,
        runs=expected,
        matched=matched.interval((0.0, 1.0)) if matched else None,
        final=final.interval((0.0, 1.0)) if final else None,
        coherent=_mean([r.coherent_rate for r in runs]) if runs else None,
        unjudged=sum(r.counts["unjudged"] for r in runs) / total if total else 1.0,
        capability=_mean([r.capability for r in runs]) if runs else None,
        steps_to_target=_mean([r.matched_step for r in runs]) if learned else None,
        seconds_to_target=_mean([r.seconds_to_target for r in runs]) if learned else None,
        flatness_gap=_mean([r.spectral.flatness_gap if r.spectral else None for r in runs]) if runs else None,
        cost_s=fsum(r.wall_s for r in entry.runs.values()),
        cells=cells,
    )


def capability_of(found: ScoreRecord, tier: Tier) -> float | None:
    """Mean accuracy over the tier's tasks (`task/acc` in the score); None where there are none, or one was not measured."""
    values = [(found.capability or {}).get(f"{task}/acc") for task in tier.capability]
    return _mean(values) if values else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if len(known) == len(values) else None
