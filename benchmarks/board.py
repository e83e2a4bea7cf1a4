"""Speed of the board on synthetic entries: `leaderboard build` + `verify` from 100 to 1,000 entries, and the page in Chromium.

    .venv/bin/python benchmarks/board.py [--small 100] [--large 1000] [--json]

An entry is of tiny size: one organism, one dataset, three seeds, two evaluations of 162 answers each. Prints CPU seconds an entry at both
sizes and their ratio (at most 1.3); what reading an entry costs in a process of its own with limits against reading it in this one (at
most 1.3 times), and the memory that it takes more there; and how long the page of the larger board takes to load (under 2 s).
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers import synthetic_entries as synthetic
from helpers.browser import CHROMIUM, Browser

from em_bench.board import board as boards
from em_bench.board.board import read_board
from em_bench.board.publish import publish

LIBRARIES = ("AdamW", "Adam", "SGD", "NAdam", "RAdam", "Adagrad")


def main() -> int:
    """Measure, print, and return 1 where a bound is broken."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--small", type=int, default=100)
    options.add_argument("--large", type=int, default=1000)
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    top = Path(tempfile.mkdtemp(prefix="em_bench_board_"))
    try:
        found = measure(top, asked.small, asked.large)
    finally:
        shutil.rmtree(top)
    if asked.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            print(f"{name:32} {value:.4g}")
    return int(max(found["ratio"], found["contained / here, CPU"]) > 1.3 or found.get("page loads, s", 0) > 2)


def measure(top: Path, small: int, large: int) -> dict[str, float]:
    """Seconds of everything, by name."""
    folders = synthetic.leaderboard(top, synthetic.benchmark())
    each: dict[int, float] = {}
    made = 0
    build(folders, top, 0)  # imports
    for size in (small, large):
        while made < size:
            name = "adamw" if made == 0 else f"entry-{made:04d}"
            library = f"torch.optim.{LIBRARIES[made % len(LIBRARIES)]}"
            synthetic.entry(folders, name, lambda dataset, seed, n=made: 0.05 + 0.9 * n / large, library=library)
            made += 1
            progress(f"{made} of {large} entries written")
        each[size] = build(folders, top, size) / size
    found = {f"CPU s an entry, of {size}": seconds for size, seconds in each.items()} | {"ratio": each[large] / each[small]}
    found |= containment(folders)
    if CHROMIUM:
        found["page loads, s"] = load_time(top)
    return found


def build(folders, top: Path, size: int) -> float:
    """CPU seconds of verifying, scoring, ranking and publishing everything."""
    began = cpu()  # and not by the clock: other work on the machine does not count
    board = read_board(folders, "v2", "organism", lambda name: progress(f"board of {size}: {name}"))
    publish(board, folders, top / "board.json", top / "site")
    assert all(c.passed for r in board.rows for c in r.checks)
    return cpu() - began


def cpu() -> float:
    """Seconds of the processor, of this process and of those that it waited for: each entry is read in one of its own."""
    return sum(os.times()[:4])


def containment(folders) -> dict[str, float]:
    """The same entry read in a process with limits, as the board does it, and in this one: the better of five, and the peak of memory."""
    seconds, peak = [], []
    for read, who in (
        (lambda: boards._contained(folders, "adamw"), resource.RUSAGE_CHILDREN),
        (lambda: boards._read(folders, "adamw", True, None), resource.RUSAGE_SELF),  # in which this process grows
    ):
        each = []
        for _ in range(5):
            began = cpu()
            read()
            each.append(cpu() - began)
        seconds.append(min(each))
        peak.append(resource.getrusage(who).ru_maxrss / 1024)
    return {
        "CPU s to read an entry, contained": seconds[0],
        "CPU s to read an entry, here": seconds[1],
        "contained / here, CPU": seconds[0] / seconds[1],
        "MiB at most, contained": peak[0],
        "MiB at most, here": peak[1],
        "contained / here, memory": peak[0] / peak[1],
    }


def load_time(top: Path) -> float:
    """Seconds from asking for the page to its rows being sortable, the best of three."""
    browser = Browser(top / "profile")
    try:
        seconds = []
        for _ in range(3):
            browser.open("about:blank#")
            browser.open(top / "site" / "index.html")
            seconds.append(browser.run("performance.timing.loadEventEnd - performance.timing.navigationStart") / 1000)
        return min(seconds)
    finally:
        browser.close()


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
