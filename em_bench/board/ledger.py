"""What maintainers and readers add to an entry: re-trained cells, challenges, a retraction. One file an entry."""

import secrets
from collections.abc import Collection
from math import fsum, sqrt
from pathlib import Path
from random import Random
from typing import Literal

from pydantic import Field, ValidationError

from em_bench.board.benchmark import Acceptance
from em_bench.board.submission import NAME, Line, Text
from em_bench.errors import UserError
from em_bench.files import first_problem, read_record, write_record
from em_bench.line import one_line
from em_bench.machine import utc_now
from em_bench.records import Machine, Record, Sha256

Status = Literal["verified", "self-reported", "challenged", "failed", "retracted"]


class RepeatedNumber(Record):
    """A number of the entry beside the one that was found again; None where there was nothing to measure."""

    what: Literal["loss", "misaligned", "capability"]
    at: Literal["log", "upper", "lower", "end"] = Field(description="log: the held-out losses, where they differ most")
    recorded: float | None
    found: float | None
    within: bool = Field(description="they differ by at most the tier's tolerance; of a rate: see Ledger.flattered")


class Rerun(Record):
    """One cell that somebody else trained and evaluated again."""

    run_id: str
    numbers: list[RepeatedNumber] = Field(min_length=1)
    same_kind: bool = Field(description="of machine as the entry's run: then numbers repeat to their printed digits")
    too_low: float = Field(
        description="rate found again minus the entry's, mean over both losses; above 0 the entry's are too low"
    )
    variance: float = Field(ge=0, description="of `too_low`, from the sampling of both sides' answers")
    machine: Machine
    created: str

    @property
    def within(self) -> bool:
        """Whether every number is."""
        return all(n.within for n in self.numbers)


class Taken(Record):
    """When an entry was taken. The nonce was drawn after its results were fixed: with their hash it draws the cells to be re-trained."""

    order: int = Field(ge=1, description="place among all entries; whatever dates they claim")
    manifest_sha256: Sha256
    nonce: str = Field(pattern=r"^[0-9a-f]{32}$")
    created: str


class Challenge(Record):
    """A doubt; it shows on the page until it is answered."""

    reason: Text
    by: Line | None = None
    created: str
    answer: Text | None = None
    answered: str | None = None


class Ledger(Record):
    """leaderboard/ledger/NAME.json."""

    schema_version: Literal["em_bench.ledger/2"] = "em_bench.ledger/2"
    name: str
    taken: Taken | None = None
    reruns: list[Rerun] = Field(default_factory=list)
    challenges: list[Challenge] = Field(default_factory=list)
    retracted: Text | None = Field(default=None, description="why; the row stays, struck through")

    @property
    def challenged(self) -> bool:
        """Whether a challenge waits for an answer."""
        return any(c.answer is None for c in self.challenges)

    def flattered(self, alpha: float) -> bool:
        """Whether all re-trained cells together show the entry's rates too low: one-sided, the error that of sampling answers."""
        from scipy.special import ndtri

        low, variance = fsum(r.too_low for r in self.reruns), fsum(r.variance for r in self.reruns)
        return low > -float(ndtri(alpha)) * sqrt(variance) + 1e-12

    def drawn(self, run_ids: Collection[str], cells: int) -> list[str]:
        """The cells to be re-trained. Raises UserError for an entry that was not taken."""
        if self.taken is None:
            raise UserError(f"{self.name}: was not taken yet; `em-bench leaderboard verify {self.name} --rerun` takes it")
        seed = f"{self.taken.manifest_sha256}/{self.taken.nonce}"
        return Random(seed).sample(sorted(run_ids), min(cells, len(run_ids)))

    def status(self, passed: bool, manifest_sha256: str | None, run_ids: Collection[str], rules: Acceptance) -> Status:
        """Retracted, then challenged, then failed, then verified: all the cells that were drawn, within tolerance, none flattered."""
        if self.retracted:
            return "retracted"
        if not passed:
            return "failed"
        if self.challenged:
            return "challenged"
        if self.taken is None or self.taken.manifest_sha256 != manifest_sha256:
            return "self-reported"
        done = {r.run_id for r in self.reruns}
        enough = {*self.drawn(run_ids, rules.rerun_cells)} <= done and all(r.within for r in self.reruns)
        return "verified" if done and enough and not self.flattered(rules.rerun_alpha) else "self-reported"


def read_ledger(folder: Path, name: str) -> Ledger:
    """The ledger of an entry, empty where there is no file. Raises UserError for a bad one."""
    path = folder / f"{name}.json"
    if not path.exists():
        return Ledger(name=name)
    found = read_record(path, Ledger)
    if found.name != name:
        raise UserError(f"{path}: name: says {one_line(found.name, 60)!r}; name the file after the entry")
    return found


def take(folder: Path, name: str, manifest_sha256: str) -> Ledger:
    """The ledger of an entry that is taken with these results: last in order, with a fresh nonce, unless it was taken with them before."""
    ledger = read_ledger(folder, name)
    if ledger.taken is None or ledger.taken.manifest_sha256 != manifest_sha256:
        others = [found.taken.order for p in folder.glob("*.json") if (found := read_ledger(folder, p.stem)).taken]
        order = 1 + max(others, default=0)
        taken = Taken(order=order, manifest_sha256=manifest_sha256, nonce=secrets.token_hex(16), created=utc_now())
        ledger = ledger.model_copy(update={"taken": taken, "reruns": []})
        write_ledger(folder, ledger)
    return ledger


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
