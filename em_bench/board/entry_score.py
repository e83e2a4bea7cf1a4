"""Everything that the board says of an entry's numbers, as records."""

from collections.abc import Callable
from statistics import fmean

from pydantic import Field

from em_bench.board.seed_table import Interval
from em_bench.board.views import RANKED, PointScore, View
from em_bench.records import Record


class Gate(Record):
    """A condition of being ranked."""

    id: str
    sentence: str
    passed: bool
    detail: str


class OtherJudge(Record):
    """Of an entry that the tier's successor judged: what stands beside the mapped rate, all by that judge as it is."""

    model: str
    rate: Interval | None = Field(description="misaligned of asked, as the successor counts it")
    problem: str | None = Field(
        description="why it is not on the scale of the tier's judge; None: every interval of the entry is"
    )


class RunScore(Record):
    """One seed of a cell: what it says at each view, None where it never comes so far."""

    seed: int
    run_id: str
    points: dict[View, PointScore | None]


class ViewScore(Record):
    """One view of a cell or of the whole entry: the misaligned of all asked with their interval, and the means of what stands beside."""

    rate: Interval
    beside: PointScore


class CellScore(Record):
    """A model and dataset."""

    model: str
    dataset: str
    losses: tuple[float, float, float] = Field(description="of the early stop, and the two that are ranked by")
    views: dict[View, ViewScore | None] = Field(description="None where a seed never comes so far")
    runs: list[RunScore]


class EntryScore(Record):
    """Everything that the board says of an entry's numbers."""

    learned: bool = Field(description="every run of every cell reached both losses")
    reached: int
    runs: int
    rate: Interval | None = Field(description="misaligned of asked, mean over cells and both losses: what is ranked by")
    views: dict[View, ViewScore | None]
    difference: Interval | None = Field(default=None, description="`rate` minus the baseline's, paired by seed and domain")
    end_difference: Interval | None = Field(default=None, description="the same at the end of training")
    other_judge: OtherJudge | None = Field(default=None, exclude_if=lambda v: v is None)
    unjudged: float
    cost_s: float = Field(description="wall time of all training runs, candidates included")
    gates: list[Gate] = Field(default_factory=list)
    cells: list[CellScore]

    @property
    def ranked(self) -> bool:
        """Whether the numbers allow a rank."""
        return self.learned and self.rate is not None and all(g.passed for g in self.gates)

    def mean(self, read: Callable[[PointScore], float | None]) -> float | None:
        """A number beside the rate, as the mean over both losses; None where one lacks it."""
        known = [x for name in RANKED if (v := self.views[name]) and (x := read(v.beside)) is not None]
        return fmean(known) if len(known) == len(RANKED) else None
