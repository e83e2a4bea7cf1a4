"""A row of the board and the board itself, as records."""

from typing import Literal

from pydantic import Field

from em_bench.board.benchmark import TierName
from em_bench.board.entry_score import EntryScore
from em_bench.board.ledger import Challenge, Rerun, Status
from em_bench.board.submission import Submission
from em_bench.records import Machine, Record, Sha256
from em_bench.verify.checks import Check


class BoardRow(Record):
    """One entry on the board."""

    name: str
    status: Status
    rank: int | None = Field(
        description="of verified entries; 1 is shared by those that differ from the leader by no more than chance"
    )
    tied: int | None = Field(description="entries that share the rank")
    p_leader: float | None = Field(description="Holm-corrected p of the difference from the leader")
    p_baseline: float | None = Field(description="likewise from the baseline")
    counted_as: str | None = Field(
        description="the better entry of the same authors, optimiser and track, which alone has a rank"
    )
    order: int | None = Field(description="in which entries were taken, from the ledger")
    submission: Submission | None
    created: str | None
    manifest_sha256: Sha256 | None
    machine: Machine | None
    checks: list[Check]
    score: EntryScore | None
    challenges: list[Challenge]
    reruns: list[Rerun]
    retracted: str | None


class Board(Record):
    """board.json: the rows of one benchmark version and tier, ranked first."""

    schema_version: Literal["em_bench.board/2"] = "em_bench.board/2"
    benchmark: str
    tier: TierName
    rules_sha256: Sha256
    baseline: str
    rows: list[BoardRow]
