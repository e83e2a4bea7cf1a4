"""One controller a work folder: a lock that lives as long as the controller or its Snakemake does."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from em_bench.errors import UserError

FILE = ".lock"
PATIENCE_S = 3.0  # a killed controller's Snakemake needs a moment to follow it


@contextmanager
def controller_lock(work: Path) -> Iterator[int]:
    """Hold the folder's lock; gives its file descriptor, to be handed to the engine. Raises UserError if it is taken."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / FILE, "a+") as f:
        deadline = time.monotonic() + PATIENCE_S
        while not _locked(f):
            if time.monotonic() > deadline:
                f.seek(0)
                raise UserError(
                    f"{work}: em-bench reproduce (process {f.read().strip() or '?'}) is at work here; wait for it, or end it"
                )
            time.sleep(0.1)
        f.truncate(0)
        f.write(str(os.getpid()))
        f.flush()
        yield f.fileno()


def controller(work: Path) -> int | None:
    """The process id of the controller at work in the folder, None where there is none."""
    try:
        with open(work / FILE) as f:
            try:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(f.read() or 0)
    except FileNotFoundError:
        pass
    return None


def _locked(f) -> bool:
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
