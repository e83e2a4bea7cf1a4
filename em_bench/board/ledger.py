"""What maintainers and readers add to an entry: re-trained cells, challenges, a retraction. One file an entry."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from em_bench.board.submission import NAME, Line, Text
from em_bench.errors import UserError
from em_bench.files import first_problem, read_record, write_record
from em_bench.machine import utc_now
from em_bench.records import Machine, Record, Sha256

Status = Literal["verified", "self-reported", "challenged", "failed", "retracted"]


class RepeatedNumber(Record):
    """A number of the entry beside the one that was found again; None where there was nothing to measure."""

    what: Literal["step", "loss", "misaligned", "capability"]
    at: Literal["matched", "end"]
    recorded: float | None
    found: float | None
    within: bool = Field(description="they differ by at most the tier's tolerance")


class Rerun(Record):
    """One cell that somebody else trained and evaluated again."""

    run_id: str
    numbers: list[RepeatedNumber] = Field(min_length=1)
    machine: Machine
    created: str

    @property
    def within(self) -> bool:
        """Whether every number is."""
        return all(n.within for n in self.numbers)


class Challenge(Record):
    """A doubt; it shows on the page until it is answered."""

    reason: Text
    by: Line | None = None
    created: str
    answer: Text | None = None
    answered: str | None = None


class Ledger(Record):
    """leaderboard/ledger/NAME.json."""

    schema_version: Literal["em_bench.ledger/1"] = "em_bench.ledger/1"
    name: str
    manifest_sha256: Sha256 | None = Field(default=None, description="of the results that the re-runs are of")
    reruns: list[Rerun] = Field(default_factory=list)
    challenges: list[Challenge] = Field(default_factory=list)
    retracted: Text | None = Field(default=None, description="why; the row stays, struck through")

    @property
    def challenged(self) -> bool:
        """Whether a challenge waits for an answer."""
        return any(c.answer is None for c in self.challenges)

    def status(self, passed: bool, manifest_sha256: str | None, needed: int) -> Status:
        """Retracted, then challenged, then failed, then verified by at least `needed` re-trained cells of these results."""
        if self.retracted:
            return "retracted"
        if not passed:
            return "failed"
        if self.challenged:
            return "challenged"
        ours = self.reruns if self.manifest_sha256 == manifest_sha256 else []
        enough = len({r.run_id for r in ours}) >= needed and all(r.within for r in ours)
        return "verified" if enough else "self-reported"


def read_ledger(folder: Path, name: str) -> Ledger:
    """The ledger of an entry, empty where there is no file. Raises UserError for a bad one."""
    path = folder / f"{name}.json"
    if not path.exists():
        return Ledger(name=name)
    found = read_record(path, Ledger)
    if found.name != name:
        raise UserError(f"{path}: name: says {found.name!r}; name the file after the entry")
    return found


def write_ledger(folder: Path, ledger: Ledger) -> Path:
    """Write it; returns its path."""
    write_record(folder / f"{ledger.name}.json", ledger)
    return folder / f"{ledger.name}.json"


def challenge(
    folder: Path,
    submissions: Path,
    name: str,
    *,
    reason: str | None,
    by: str | None,
    answer: str | None,
    retract: str | None,
) -> Path:
    """Record a challenge, answer all open ones, or retract an entry. Raises UserError for an unknown entry and bad text."""
    if not NAME.fullmatch(name) or not (submissions / name).is_dir():
        raise UserError(f"{name!r}: no such entry under {submissions}; name one of its folders")
    if sum(text is not None for text in (reason, answer, retract)) != 1:
        raise UserError("give exactly one of --reason, --answer and --retract")
    ledger = read_ledger(folder, name)
    try:
        if reason is not None:
            change: dict[str, object] = {"challenges": [*ledger.challenges, Challenge(reason=reason, by=by, created=utc_now())]}
        elif answer is not None:
            if not ledger.challenged:
                raise UserError(f"{name}: no open challenge to answer")
            now = utc_now()
            change = {
                "challenges": [
                    c if c.answer else Challenge.model_validate(c.model_dump() | {"answer": answer, "answered": now})
                    for c in ledger.challenges
                ]
            }
        else:
            change = {"retracted": retract}
        return write_ledger(folder, Ledger.model_validate(ledger.model_dump() | dict(change.items())))
    except ValidationError as e:
        raise UserError(f"{name}: {first_problem(e)}; write plain text") from None
