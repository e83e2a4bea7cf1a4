"""The board: every entry verified, scored, compared and ranked. The same files give the same board."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from em_bench import assets
from em_bench.board.benchmark import Benchmark, TierName, load_benchmark
from em_bench.board.copies import Fingerprint, check_copies
from em_bench.board.entry import MANIFEST, RESULTS
from em_bench.board.ledger import Challenge, Ledger, Rerun, Status, read_ledger
from em_bench.board.make_entry import ready
from em_bench.board.ranking import places
from em_bench.board.score import EntryScore, Scored, compared, score_entry
from em_bench.board.submission import FILE, NAME, Submission, read_submission
from em_bench.board.verify import Verified, verify_entry
from em_bench.errors import UserError
from em_bench.files import read_record, sha256_file
from em_bench.records import Machine, Record, Sha256
from em_bench.verify.checks import Check


class BoardRow(Record):
    """One entry on the board."""

    name: str
    status: Status
    rank: int | None = Field(description="shared by entries that differ from the first of their group by no more than chance")
    tied: int | None = Field(description="entries that share the rank")
    p_leader: float | None = Field(description="Holm-corrected p of the difference from the first of the group")
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

    schema_version: Literal["em_bench.board/1"] = "em_bench.board/1"
    benchmark: str
    tier: TierName
    rules_sha256: Sha256
    baseline: str
    rows: list[BoardRow]


class Folders(NamedTuple):
    """Where a leaderboard keeps its parts."""

    submissions: Path
    ledger: Path
    benchmarks: Path | None = None

    @classmethod
    def at(cls, top: Path) -> "Folders":
        """The usual layout under `top`. Raises UserError where there are no submissions."""
        top = Path(top)
        if (top / "submissions").is_symlink() or not (top / "submissions").is_dir():
            raise UserError(f"{top}/submissions: no such folder; run this in a clone, or name the leaderboard with --leaderboard")
        benchmarks = top / "benchmark"
        return cls(top / "submissions", top / "ledger", benchmarks if benchmarks.is_dir() else None)

    def names(self) -> list[str]:
        """Every entry, sorted. Raises UserError for two that collide where case does not count."""
        found = sorted(
            p.name for p in self.submissions.iterdir() if not p.name.startswith(".") and (p.is_dir() or p.is_symlink())
        )
        bad = next((n for n in found if not NAME.fullmatch(n)), None)
        if bad is not None:
            raise UserError(
                f"{ascii(bad)[1:-1][:80]}: not a name of an entry; use 3 to 40 lower-case letters, digits and hyphens"
            )
        return found


class _Found(NamedTuple):
    verified: Verified
    scored: Scored | None
    row: BoardRow


def read_board(folders: Folders, version: str, tier: TierName, on_entry: Callable[[str], None] = lambda name: None) -> Board:
    """Verify, score and rank every entry of a benchmark version and tier. Raises UserError for names that are not entries'."""
    benchmark = load_benchmark(version, folders.benchmarks)
    found: list[_Found] = []
    for name in folders.names():
        on_entry(name)
        if (one := _read(folders, name, benchmark, tier)) is not None:
            found.append(one)
    copies = check_copies((f.row.name, _trusted(f.verified.prints, f.row.status)) for f in found)
    found = [f._replace(row=_with_check(f.row, copies.get(f.row.name))) for f in found]
    return Board(
        benchmark=version,
        tier=tier,
        rules_sha256=benchmark.rules_sha256(tier),
        baseline=benchmark.baselines[tier],
        rows=_ranked(found, benchmark, tier, folders),
    )


def judge_entry(folders: Folders, name: str) -> BoardRow:
    """One entry as the board would show it, without a rank: its checks (copies of others included) and its numbers."""
    if not NAME.fullmatch(name) or not (folders.submissions / name).exists():
        raise UserError(f"{name!r}: no such entry under {folders.submissions}; `em-bench submit init` makes one")
    verified = verify_entry(folders.submissions / name, folders.benchmarks, datetime.now(UTC))
    if verified.benchmark is None:
        return _row(verified, None, Ledger(name=name), 1)
    entry, benchmark, rules = verified.read()
    tier = entry.submission.tier
    one = _finish(verified, folders, benchmark, tier)
    if verified.prints is None:
        return one.row
    others = [verify_entry(folders.submissions / n, folders.benchmarks) for n in folders.names() if n != name]
    prints = [(v.name, _trusted(v.prints, _status(v, folders))) for v in (verified, *others) if v.prints]
    row = _with_check(one.row, check_copies(prints).get(name))
    if name == benchmark.baselines[tier]:
        standard = one.scored
    else:
        standard = _scored(
            next((v for v in others if v.name == benchmark.baselines[tier]), None) or _shipped(benchmark, tier, folders)
        )
    return row.model_copy(update={"score": compared(one.scored, standard, rules)}) if one.scored else row


def _shipped(benchmark: Benchmark, tier: TierName, folders: Folders) -> Verified | None:
    """The baseline that comes with the installation, for a leaderboard that lacks it; None where that lacks it too."""
    there = assets.path("leaderboard", "submissions", benchmark.baselines[tier])
    return verify_entry(there, folders.benchmarks) if there.is_dir() else None


def _scored(baseline: Verified | None) -> Scored | None:
    """What others are compared with; None where there is no baseline, or it fails its own checks."""
    if baseline is None or not baseline.passed:
        return None
    entry, benchmark, tier = baseline.read()
    return score_entry(entry, tier, benchmark)


def judge_entries(folders: Folders) -> dict[str, BoardRow]:
    """Every entry, of whatever version and tier, as its board shows it."""
    seen: set[tuple[str, TierName]] = set()
    for name in folders.names():
        try:
            said = read_submission(folders.submissions / name)
            seen.add((load_benchmark(said.benchmark, folders.benchmarks).version, said.tier))
        except UserError:
            seen.add(("v1", "organism"))  # what cannot be read fails on every board
    boards = [read_board(folders, version, tier) for version, tier in sorted(seen)]
    return {r.name: r for board in boards for r in board.rows}


def check_ready(folders: Folders, name: str) -> None:
    """Raise UserError for an entry without results that `submit run` would refuse; results are judged by their own checks."""
    folder = folders.submissions / name
    if (folder / FILE).exists() and not (folder / RESULTS / MANIFEST).exists():
        entry = read_submission(folder)
        ready(entry, folder, load_benchmark(entry.benchmark, folders.benchmarks).tiers[entry.tier], own_code=False)


def progress_of(folders: Folders, name: str, checked: bool) -> tuple[str, str]:
    """How far an entry is, and what comes next. Unless `checked`, its results are neither read nor recomputed, which takes seconds."""
    folder = folders.submissions / name
    try:
        read_submission(folder)
        check_ready(folders, name)
    except UserError as e:
        return "not valid", f"mend it: {e}"
    if not (folder / RESULTS / MANIFEST).exists():
        return "written", f"em-bench submit run {name}"
    if not checked:
        return "run", f"em-bench submit check {name}"
    found = verify_entry(folder, folders.benchmarks)
    failed = [c.id for c in found.checks if not c.passed]
    if failed:
        return f"run, {len(failed)} of {len(found.checks)} checks fail", f"em-bench submit check {name}"
    return f"run, {len(found.checks)} checks pass", "open a pull request with this folder"


def _read(folders: Folders, name: str, benchmark: Benchmark, tier: TierName) -> _Found | None:
    """An entry of this version and tier; None for one of another. What cannot be read is shown as failed."""
    verified = verify_entry(folders.submissions / name, folders.benchmarks)
    if verified.entry and (verified.entry.submission.benchmark, verified.entry.submission.tier) != (
        benchmark.version,
        tier,
    ):
        return None
    return _finish(verified, folders, benchmark, tier)


def _finish(verified: Verified, folders: Folders, benchmark: Benchmark, tier: TierName) -> _Found:
    scored = None
    rules = benchmark.tiers[tier]
    if verified.prints is not None and verified.entry is not None:
        scored = score_entry(verified.entry, rules, benchmark)
    row = _row(
        verified,
        scored.score if scored else None,
        read_ledger(folders.ledger, verified.name),
        rules.acceptance.rerun_cells,
    )
    light = verified._replace(entry=None)  # a thousand entries' responses need not stay in memory
    return _Found(light, scored, row)


def _row(verified: Verified, score: EntryScore | None, ledger: Ledger, needed: int) -> BoardRow:
    entry = verified.entry
    path = entry.results / MANIFEST if entry else None
    manifest_sha256 = sha256_file(path) if path and path.is_file() else None
    manifest = entry.manifest if entry and score else None
    return BoardRow(
        name=verified.name,
        status=ledger.status(verified.passed, manifest_sha256, needed),
        rank=None,
        tied=None,
        p_leader=None,
        submission=entry.submission if entry else None,
        created=manifest.created if manifest else None,
        manifest_sha256=manifest_sha256,
        machine=manifest.machine if manifest else None,
        checks=verified.checks,
        score=score,
        challenges=ledger.challenges,
        reruns=ledger.reruns if ledger.manifest_sha256 == manifest_sha256 else [],
        retracted=ledger.retracted,
    )


def _status(verified: Verified, folders: Folders) -> Status:
    entry, _, tier = verified.read()
    manifest = sha256_file(entry.results / MANIFEST)
    return read_ledger(folders.ledger, verified.name).status(verified.passed, manifest, tier.acceptance.rerun_cells)


def _trusted(prints: Fingerprint | None, status: Status) -> Fingerprint | None:
    return prints and prints._replace(trusted=status == "verified")


def _with_check(row: BoardRow, check: Check | None) -> BoardRow:
    if check is None:
        return row
    failed = not check.passed and row.status not in ("retracted",)
    return row.model_copy(update={"checks": [*row.checks, check], "status": "failed" if failed else row.status})


def _ranked(found: Sequence[_Found], benchmark: Benchmark, tier: TierName, folders: Folders) -> list[BoardRow]:
    rules, name = benchmark.tiers[tier], benchmark.baselines[tier]
    if name in folders.names():
        baseline = next((f.scored for f in found if f.row.name == name and f.row.status != "failed"), None)
    else:
        baseline = _scored(_shipped(benchmark, tier, folders)) if found else None
    rows = [f.row.model_copy(update={"score": compared(f.scored, baseline, rules)}) if f.scored else f.row for f in found]
    able = {
        f.row.name: f.scored.matched
        for f, r in zip(found, rows, strict=True)
        if f.scored and f.scored.matched and r.score and r.score.ranked and r.status not in ("failed", "retracted")
    }
    standing = places(able, rules.acceptance.alpha)
    placed = [
        r.model_copy(update=standing[r.name]._asdict() | {"tied": standing[r.name].tied}) if r.name in standing else r
        for r in rows
    ]

    def order(row: BoardRow):
        matched = row.score.matched.value if row.score and row.score.matched else 2.0
        final = row.score.final.value if row.score and row.score.final else 2.0
        return (row.rank is None, matched, final, row.name)

    return sorted(placed, key=order)


def read_board_file(path: Path) -> Board:
    """A published board.json."""
    return read_record(path, Board)
