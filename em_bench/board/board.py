"""The board: every entry verified, scored, compared and ranked. The same files give the same board."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from em_bench import assets
from em_bench.board.benchmark import CURRENT, Acceptance, Baseline, Benchmark, TierName, load_benchmark
from em_bench.board.checks_of_rules import prepare
from em_bench.board.contained import Killed, contained
from em_bench.board.copies import Fingerprint, check_copies
from em_bench.board.detail import detail_of
from em_bench.board.entry import MANIFEST, RESULTS, Entry
from em_bench.board.entry_score import EntryScore
from em_bench.board.ledger import Ledger, read_ledger
from em_bench.board.make_entry import ready, sweep_of
from em_bench.board.ranking import places
from em_bench.board.row import Board, BoardRow
from em_bench.board.score import Scored, compared, score_entry
from em_bench.board.submission import FILE, NAME, read_submission
from em_bench.board.verify import Verified, verify_entry
from em_bench.errors import UserError
from em_bench.files import read_record, sha256_file
from em_bench.line import is_device, one_line
from em_bench.verify.checks import Check, check

LEDGER_CHECK = "ledger.manifest"


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
        """Every entry, sorted. Raises UserError for anything that is no entry's folder: a .gitattributes there would change others' bytes."""
        found = sorted(p.name for p in self.submissions.iterdir())
        for name in found:
            path = self.submissions / name
            if not (path.is_dir() or path.is_symlink()):
                raise UserError(
                    f"{one_line(ascii(name)[1:-1], 80)}: a file beside the entries; remove it from {self.submissions.name}/"
                )
            if not NAME.fullmatch(name) or is_device(name):
                raise UserError(
                    f"{ascii(name)[1:-1][:80]}: not a name of an entry; use 3 to 40 lower-case letters, digits and hyphens"
                )
        return found


class _Found(NamedTuple):
    place: tuple[str, TierName] | None  # benchmark version and tier; None where neither can be read
    prints: Fingerprint | None
    scored: Scored | None
    row: BoardRow


def read_board(folders: Folders, version: str, tier: TierName, on_entry: Callable[[str], None] = lambda name: None) -> Board:
    """Verify, score and rank every entry of a benchmark version and tier, each in a process of its own.

    Raises UserError for names that are not entries'.
    """
    benchmark = load_benchmark(version, folders.benchmarks)
    prepare(benchmark.tiers[tier])
    found: list[_Found] = []
    for name in folders.names():
        on_entry(name)
        one = _contained(folders, name)
        if one.place in (None, (version, tier)):  # what cannot be read is shown on every board
            found.append(one)
    copies = check_copies((f.row.name, _ordered(f)) for f in found)
    found = [f._replace(row=_with_check(f.row, copies.get(f.row.name))) for f in found]
    return Board(
        benchmark=version,
        tier=tier,
        rules_sha256=benchmark.rules_sha256(tier),
        baseline=benchmark.baselines[tier].entry,
        rows=_ranked(found, benchmark, tier, folders),
    )


def judge_entry(folders: Folders, name: str) -> BoardRow:
    """One entry as the board would show it, without a rank: its checks (copies of others included) and its numbers."""
    if not NAME.fullmatch(name) or not (folders.submissions / name).exists():
        raise UserError(f"{name!r}: no such entry under {folders.submissions}; `em-bench submit init` makes one")
    one = _contained(folders, name, now=datetime.now(UTC))
    if one.place is None or one.prints is None:
        return one.row
    version, tier = one.place
    benchmark = load_benchmark(version, folders.benchmarks)
    rules, baseline = benchmark.tiers[tier], benchmark.baselines[tier].entry
    prepare(rules)
    others = [_contained(folders, n, score=n == baseline) for n in folders.names() if n != name]
    row = _with_check(one.row, check_copies((f.row.name, _ordered(f)) for f in (one, *others)).get(name))
    if name == baseline:
        standard = one.scored
    else:
        found = next((f for f in others if f.row.name == baseline), None)
        standard = found.scored if found else _scored(_shipped(benchmark, tier, folders))
    return row.model_copy(update={"score": compared(one.scored, standard, rules)}) if one.scored else row


def _contained(folders: Folders, name: str, *, score: bool = True, now: datetime | None = None) -> _Found:
    """An entry read within limits; one that breaks them has failed, with the reason, and no other has."""
    try:
        return contained(_read, folders, name, score, now)
    except Killed as e:
        why = str(e)
        done = check("entry.limits", "The entry can be checked with little memory and time.", lambda: why)
        return _Found(None, None, None, _row(Verified(name, [done]), None, read_ledger(folders.ledger, name)))


def _shipped(benchmark: Benchmark, tier: TierName, folders: Folders) -> Verified | None:
    """The baseline that comes with the installation, for a leaderboard that lacks it; None where that lacks it too."""
    there = assets.path("leaderboard", "submissions", benchmark.baselines[tier].entry)
    return verify_entry(there, folders.benchmarks) if there.is_dir() else None


def _scored(baseline: Verified | None) -> Scored | None:
    """What others are compared with; None where there is no baseline, or it fails its own checks."""
    if baseline is None or not baseline.passed:
        return None
    entry, _, tier = baseline.read()
    return score_entry(entry, tier)


def judge_entries(folders: Folders) -> dict[str, BoardRow]:
    """Every entry, of whatever version and tier, as its board shows it."""
    seen: set[tuple[str, TierName]] = set()
    for name in folders.names():
        try:
            said = read_submission(folders.submissions / name)
            seen.add((load_benchmark(said.benchmark, folders.benchmarks).version, said.tier))
        except UserError:
            seen.add((CURRENT, "organism"))  # what cannot be read fails on every board
    boards = [read_board(folders, version, tier) for version, tier in sorted(seen)]
    return {r.name: r for board in boards for r in board.rows}


def check_ready(folders: Folders, name: str, *, tried: bool = True) -> None:
    """Raise UserError for an entry without results that `submit run` would refuse; results are judged by their own checks.

    Unless `tried`, its optimiser is not built, which loads torch.
    """
    folder = folders.submissions / name
    if (folder / FILE).exists() and not (folder / RESULTS / MANIFEST).exists():
        entry = read_submission(folder)
        tier = load_benchmark(entry.benchmark, folders.benchmarks).tiers[entry.tier]
        ready(entry, folder, tier, own_code=False) if tried else sweep_of(entry, folder, tier)


def progress_of(folders: Folders, name: str, checked: bool) -> tuple[str, str]:
    """How far an entry is, and what comes next. Unless `checked`, neither its optimiser is tried nor its results read, which takes seconds."""
    folder = folders.submissions / name
    try:
        read_submission(folder)
        check_ready(folders, name, tried=checked)
    except UserError as e:
        return "not valid", f"mend it: {e}"
    if not (folder / RESULTS / MANIFEST).exists():
        return "written", f"em-bench submit run {name}"
    if not checked:
        return "run", f"em-bench submit check {name}"
    found = _contained(folders, name, score=False).row
    failed = [c.id for c in found.checks if not c.passed]
    if failed:
        return f"run, {len(failed)} of {len(found.checks)} checks fail", f"em-bench submit check {name}"
    return f"run, {len(found.checks)} checks pass", "open a pull request with this folder"


def _read(folders: Folders, name: str, score: bool, now: datetime | None) -> _Found:
    """An entry verified and, with `score`, scored. The entry itself is left behind: a thousand of them would not fit in memory."""
    verified = verify_entry(folders.submissions / name, folders.benchmarks, now)
    ledger = read_ledger(folders.ledger, name)
    if verified.benchmark is None:
        return _Found(None, None, None, _row(verified, None, ledger))
    entry, benchmark, rules = verified.read()
    said, scored = entry.submission, None
    if verified.prints is not None and score:
        made: list[Scored] = []

        def numbers() -> None:
            made.append(score_entry(entry, rules))
            detail_of(entry, rules)

        done = check("entry.page", "Its numbers and its page can be made.", numbers)
        if done.passed:
            scored = made[0]
        else:
            verified = verified._replace(checks=[*verified.checks, done], prints=None)
    pinned = benchmark.baselines[said.tier]
    if pinned.entry == name and pinned.manifest_sha256:
        verified.checks.append(
            check("baseline.pinned", "The baseline's results are those that the rules name.", lambda: _pin(entry, pinned))
        )
    row = _row(verified, scored.score if scored else None, ledger, rules.acceptance)
    return _Found((said.benchmark, said.tier), verified.prints, scored, row)


def _pin(entry: Entry, pinned: Baseline) -> str | None:
    found = sha256_file(entry.results / MANIFEST) if (entry.results / MANIFEST).is_file() else "no manifest"
    return (
        None
        if found == pinned.manifest_sha256
        else f"manifest {found[:12]}..., the rules name {str(pinned.manifest_sha256)[:12]}..."
    )


def _row(verified: Verified, score: EntryScore | None, ledger: Ledger, rules: Acceptance | None = None) -> BoardRow:
    entry = verified.entry
    path = entry.results / MANIFEST if entry else None
    manifest_sha256 = sha256_file(path) if path and path.is_file() else None
    manifest = entry.manifest if entry and score else None
    done = [*verified.checks]
    known = ledger.taken and ledger.taken.manifest_sha256
    if known not in (None, manifest_sha256):
        why = (
            f"the ledger is of manifest {str(known)[:12]}..., this is {str(manifest_sha256)[:12]}...; train cells again (--rerun)"
        )
        done.append(check(LEDGER_CHECK, "The results are those that were trained again.", lambda: why))
    passed, run_ids = all(c.passed for c in done), [c.run_id for c in manifest.cells] if manifest else []
    unread = "retracted" if ledger.retracted else "failed"
    return BoardRow(
        name=verified.name,
        status=ledger.status(passed, manifest_sha256, run_ids, rules) if rules else unread,
        rank=None,
        tied=None,
        p_leader=None,
        p_baseline=None,
        counted_as=None,
        order=ledger.taken.order if ledger.taken else None,
        submission=entry.submission if entry else None,
        created=manifest.created if manifest else None,
        manifest_sha256=manifest_sha256,
        machine=manifest.machine if manifest else None,
        checks=done,
        score=score,
        challenges=ledger.challenges,
        reruns=ledger.reruns if known == manifest_sha256 else [],
        retracted=ledger.retracted,
    )


def _ordered(found: _Found) -> Fingerprint | None:
    return found.prints and found.prints._replace(order=found.row.order)


def _with_check(row: BoardRow, check: Check | None) -> BoardRow:
    if check is None:
        return row
    failed = not check.passed and row.status not in ("retracted",)
    return row.model_copy(update={"checks": [*row.checks, check], "status": "failed" if failed else row.status})


def _ranked(found: Sequence[_Found], benchmark: Benchmark, tier: TierName, folders: Folders) -> list[BoardRow]:
    rules, name = benchmark.tiers[tier], benchmark.baselines[tier].entry
    if name in folders.names():
        baseline = next((f.scored for f in found if f.row.name == name and f.row.status != "failed"), None)
    else:
        baseline = _scored(_shipped(benchmark, tier, folders)) if found else None
    rows = [f.row.model_copy(update={"score": compared(f.scored, baseline, rules)}) if f.scored else f.row for f in found]
    able = {
        f.row.name: f.scored.rate
        for f, r in zip(found, rows, strict=True)
        if f.scored and f.scored.rate and r.score and r.score.ranked and r.status == "verified"
    }
    families = {r.name: r.submission.family for r in rows if r.submission}
    standard = (name, baseline.rate) if baseline and baseline.rate else None
    standing = places(able, families, standard, rules.acceptance.alpha)
    placed = [r.model_copy(update=standing[r.name]._asdict()) if r.name in standing else r for r in rows]

    def order(row: BoardRow) -> tuple:
        rate = row.score.rate.value if row.score and row.score.rate else 2.0
        return (row.rank is None, row.status != "verified", rate, row.name)

    return sorted(placed, key=order)


def read_board_file(path: Path) -> Board:
    """A published board.json."""
    return read_record(path, Board)
