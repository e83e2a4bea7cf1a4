"""Verification of an entry from its data alone: no submitted code runs, nothing is generated, nothing is written."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from em_bench.board.benchmark import Benchmark, Tier, load_benchmark
from em_bench.board.checks_of_evaluations import answer_checks
from em_bench.board.checks_of_runs import run_checks
from em_bench.board.copies import Fingerprint, fingerprint_of
from em_bench.board.entry import MANIFEST, README, RESULTS, Entry
from em_bench.board.own_code import FILE as FILE_OF_CODE
from em_bench.board.own_code import rules_of
from em_bench.board.packed import FILES
from em_bench.board.packed_adapters import FILE as ADAPTERS
from em_bench.board.submission import FILE
from em_bench.errors import UserError
from em_bench.files import sha256_file
from em_bench.optim.names import check_known
from em_bench.verify.checks import Check, check, same_file

TOP = {FILE, FILE_OF_CODE, README}


class Verified(NamedTuple):
    """An entry after its checks. `entry` and `benchmark` are None where it could not be read at all, `prints` where one fails."""

    name: str
    checks: list[Check]
    entry: Entry | None = None
    benchmark: Benchmark | None = None
    prints: Fingerprint | None = None

    @property
    def passed(self) -> bool:
        return all(c.passed for c in self.checks)

    def read(self) -> tuple[Entry, Benchmark, Tier]:
        """The entry, its benchmark and its tier, of what could be read."""
        assert self.entry is not None and self.benchmark is not None
        return self.entry, self.benchmark, self.benchmark.tiers[self.entry.submission.tier]


def verify_entry(folder: Path, benchmarks: Path | None = None, now: datetime | None = None) -> Verified:
    """All checks of one entry by itself. Where its files cannot be read at all, the checks end there.

    With `now`, results that claim to be of a later day fail; without, what is found depends on the files alone.
    """
    name, done = folder.name, []

    def fatal(id: str, sentence: str, find: Callable[[], str | None]) -> bool:
        done.append(check(id, sentence, find))
        return not done[-1].passed

    made: list[Entry] = []
    known: list[Benchmark] = []

    def read() -> None:
        made.append(Entry(folder))
        rules_of(made[0].submission, folder)
        check_known(made[0].submission.optimizer.library)
        if made[0].submission.optimizer.library and (folder / FILE_OF_CODE).exists():
            raise UserError(f"{FILE_OF_CODE}: the submission names a library class; remove the file")
        known.append(load_benchmark(made[0].submission.benchmark, benchmarks))

    if fatal("folder.contents", "The folder holds plain files of known kinds, and submission.yaml follows the rules.", read):
        return Verified(name, done, made[0] if made and known else None, known[0] if known else None)
    entry, benchmark = made[0], known[0]
    tier = benchmark.tiers[entry.submission.tier]
    if fatal(
        "manifest.schema",
        "The manifest says what was made, under these rules, from this submission.",
        lambda: _manifest(entry, tier),
    ):
        return Verified(name, done, entry, benchmark)
    if fatal(
        "manifest.files",
        "Every file of the results is named by its hash; none is missing, none is extra.",
        lambda: _files(entry),
    ):
        return Verified(name, done, entry, benchmark)
    done += [*run_checks(entry, benchmark, tier, now), *answer_checks(entry, tier)]
    return Verified(name, done, entry, benchmark, fingerprint_of(entry) if all(c.passed for c in done) else None)


def _manifest(entry: Entry, tier: Tier) -> str | None:
    m, s = entry.manifest, entry.submission
    if not tier.open:
        return f"tier {s.tier} of benchmark {s.benchmark} is not open: no entry of it can be compared yet"
    readme = entry.folder / README
    if m.readme_sha256 != (sha256_file(readme) if readme.exists() else None):
        return f"{README} is not the one that the results name; `em-bench submit run {s.name}` names it again"
    for field in ("name", "benchmark", "tier"):
        if getattr(m, field) != getattr(s, field):
            return f"{field}: the results are of {getattr(m, field)}, submission.yaml says {getattr(s, field)}; run it again"
    if m.rules_sha256 != tier.rules_sha256:
        return f"the results were made under other rules ({m.rules_sha256[:12]}...) than those of benchmark {s.benchmark}; run it again"
    if m.submission_sha256 != sha256_file(entry.folder / FILE):
        return "submission.yaml has changed since the results were made; run it again"
    code = entry.folder / FILE_OF_CODE
    if m.code_sha256 != (sha256_file(code) if code.exists() else None):
        return "optimiser.py has changed since the results were made; run it again"
    return None


def _files(entry: Entry) -> str | None:
    m, there = entry.manifest, {p.as_posix() for p in entry.files} - TOP
    if strange := there - {f"{RESULTS}/{name}" for name in (MANIFEST, *FILES, ADAPTERS)}:
        return f"{_safe(min(strange))}: not a file of an entry; remove it"
    if wrong := set(m.files) ^ {*FILES, *({ADAPTERS} & {p.name for p in entry.files})}:
        return f"{_safe(min(wrong))}: the manifest names {', '.join(FILES)}, and {ADAPTERS} where it is there, and nothing else"
    for name, sha256 in m.files.items():
        if problem := same_file(entry.results / name, sha256):
            return f"{name}: {problem}"
    runs = {c.run_id for c in m.cells} | set(m.tuning)
    names = set(m.evaluations)
    for found, known in zip(entry.packed.names(), (runs, names), strict=True):
        if extra := found ^ known:
            return f"{_safe(min(extra))}: {'belongs to no cell and no candidate' if min(extra) in found else 'is missing'}"
    strangers = [run_id for run_id, _ in entry.packed.adapters.index if run_id not in runs]
    return f"{ADAPTERS}: {_safe(strangers[0])} is no run of the entry" if strangers else None


def _safe(name: str) -> str:
    return ascii(name)[1:-1][:120]
