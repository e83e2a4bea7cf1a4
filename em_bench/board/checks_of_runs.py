"""The checks of an entry's runs: what was run, what was chosen, when, and with which adapters."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

from em_bench.board import checks_of_rules
from em_bench.board.benchmark import Benchmark, Tier
from em_bench.board.entry import Entry
from em_bench.board.witnesses import witnesses
from em_bench.errors import UserError
from em_bench.records import RunRecord
from em_bench.verify import checks
from em_bench.verify.checks import Check, check, same


def run_checks(entry: Entry, benchmark: Benchmark, tier: Tier, now: datetime | None) -> Iterator[Check]:
    """All of them, one after the other. `now` is the day of the check, where it matters."""

    def every(find: Callable[[RunRecord], str | None]) -> Callable[[], str | None]:
        return lambda: _first(entry.runs, find)

    table = (
        (
            "cells.complete",
            "Every model, dataset and seed of the tier has one result or a stated gap.",
            lambda: checks_of_rules.complete(entry, tier),
        ),
        (
            "cells.spec",
            "Every run is the submission's optimiser under the tier's rules.",
            lambda: checks_of_rules.specs(entry, tier, benchmark.training_code),
        ),
        (
            "cells.chosen",
            "The learning rate and lambda are what the candidates' logs choose, on the rules' grid.",
            lambda: checks_of_rules.chosen(entry, tier),
        ),
        (
            "cells.evaluated",
            "Evaluated are both sides of each loss's first crossing in the log, and the end.",
            lambda: checks_of_rules.evaluated(entry, tier),
        ),
        ("run.identity", "Every run's id and hash are those of its spec.", every(checks.identity)),
        ("run.log", "Every log is the one that its run names.", every(lambda r: _log(entry, r))),
        (
            "run.steps",
            "Every log holds each step once, on schedule, and ends with the run's loss.",
            every(lambda r: checks.steps(entry.log(r.run_id), r)),
        ),
        (
            "run.distinct",
            "No two runs of other seeds or datasets have one adapter or the losses of one log.",
            lambda: checks_of_rules.distinct(entry),
        ),
        (
            "run.loss",
            "No held-out loss lies below the data's entropy, tokens are those of the rows, runs begin at the untouched base.",
            lambda: checks_of_rules.losses(entry, tier),
        ),
        (
            "run.times",
            "Runs, responses, verdicts and manifest were made in this order, after the rules, none in the future.",
            lambda: _times(entry, now, benchmark.frozen),
        ),
        (
            "cells.spectrum",
            "Stated singular values are such, and those of the adapters that are in the entry.",
            lambda: _curves(entry),
        ),
        (
            "run.adapter",
            "Every adapter in the entry has the hash and the spectrum that its run names.",
            every(lambda r: _adapter(entry, r)),
        ),
        (
            "run.witnesses",
            "The adapters of the cells that the hashes of the results draw are in the entry.",
            lambda: _witnesses(entry, tier),
        ),
    )
    for id, sentence, find in table:
        yield check(id, sentence, find)


def _first(records: Mapping[str, object], find: Callable) -> str | None:
    """The first problem among records, with the record's name."""
    return next((f"{name}: {problem}" for name, record in records.items() if (problem := find(record))), None)


def _log(entry: Entry, run: RunRecord) -> str | None:
    return same("the log", entry.packed.log_sha256(run.run_id), run.log_sha256)


def _adapter(entry: Entry, run: RunRecord) -> str | None:
    for run_id, step in entry.packed.adapters.index:
        if run_id != run.run_id:
            continue
        weights = entry.adapter(run_id, step) or b""
        expected = run.adapter_sha256 if step is None else run.checkpoints.get(step, "no such checkpoint")
        problem = same("the adapter", hashlib.sha256(weights).hexdigest(), expected)
        if problem or (step is None and (problem := checks.spectrum(weights, run))):
            return problem if step is None else f"step {step}: {problem}"
    return None


def _witnesses(entry: Entry, tier: Tier) -> str | None:
    lacking = [key for key in witnesses(entry.manifest, tier) if key not in entry.packed.adapters.index]
    if lacking:
        run_id, step = lacking[0]
        return f"{run_id}: its adapter at {'the end' if step is None else f'step {step}'} is not in the entry; `em-bench submit run` puts it there"
    return None


def _curves(entry: Entry) -> str | None:
    for cell in entry.manifest.cells:
        weights = entry.adapter(cell.run_id)
        if cell.spectrum and (problem := checks.curve(weights, cell.spectrum, entry.runs[cell.run_id])):
            return f"{cell.run_id}: {problem}"
    return None


def _times(entry: Entry, now: datetime | None, frozen: str) -> str | None:
    def at(text: str, what: str) -> datetime:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise UserError(f"{what}: {text!r:.60} is not a time") from None
        if found.tzinfo is None:
            raise UserError(f"{what}: the time has no zone; write UTC")
        return found

    made = at(entry.manifest.created, "manifest.created")
    if now and made > now + timedelta(days=1):
        return "the manifest was made in the future"
    if made.date().isoformat() < frozen:
        return f"the manifest was made before the rules, which are of {frozen}"
    ended = {}
    for run in entry.runs.values():
        started = at(run.started, f"{run.run_id}: started")
        if started.date().isoformat() < frozen:
            return f"{run.run_id}: started before the rules, which are of {frozen}"
        ended[run.run_id] = started + timedelta(seconds=run.wall_s)
        if ended[run.run_id] > made + timedelta(seconds=2):
            return f"{run.run_id}: ends after the manifest was made"
    for name, e in entry.evaluations():
        asked = at(e.header.created, f"{name}: created")
        if e.header.run_id in ended and asked < ended[e.header.run_id] - timedelta(seconds=2):
            return f"{name}: asked before its run had ended"
        for said, _ in e.verdicts:
            if not asked - timedelta(seconds=2) <= at(said.created, f"{name}: verdicts") <= made + timedelta(seconds=2):
                return f"{name}: judged before it was asked, or after the manifest was made"
    return None
