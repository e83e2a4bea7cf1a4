"""Ledgers of entries whose drawn cells were trained again, as though they had been: for tests of what follows from it."""

from em_bench.board.benchmark import load_benchmark
from em_bench.board.board import Folders
from em_bench.board.entry import MANIFEST, Entry
from em_bench.board.ledger import RepeatedNumber, Rerun, take, write_ledger
from em_bench.files import sha256_file
from helpers import synthetic_entries as synthetic


def rerun(run_id: str, within: bool = True, too_low: float = 0.0, variance: float = 1e-4) -> Rerun:
    return Rerun(
        run_id=run_id,
        numbers=[RepeatedNumber(what="loss", at="log", recorded=0.5, found=0.5, within=within)],
        same_kind=True,
        too_low=too_low,
        variance=variance,
        machine=synthetic.MACHINE,
        created="2026-11-26T00:00:00+00:00",
    )


def verify(folders: Folders, name: str, **numbers) -> None:
    """As `leaderboard verify NAME --rerun` does, without training."""
    entry = Entry(folders.submissions / name)
    rules = load_benchmark("v2", folders.benchmarks).tiers["organism"].acceptance
    ledger = take(folders.ledger, name, sha256_file(entry.results / MANIFEST))
    drawn = ledger.drawn([c.run_id for c in entry.manifest.cells], rules.rerun_cells)
    write_ledger(folders.ledger, ledger.model_copy(update={"reruns": [rerun(r, **numbers) for r in drawn]}))


def verify_all(folders: Folders) -> None:
    for name in folders.names():
        verify(folders, name)
