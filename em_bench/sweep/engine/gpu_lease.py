"""GPUs of this machine for one job at a time: a lock a device, held as long as the job's process lives.

Snakemake only counts GPUs. Which ones a job gets is decided here, across all sweeps of a user on the machine, and a job that
is killed with -9 gives its devices back by dying.
"""

import fcntl
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from em_bench.errors import UserError

DEVICES = "EM_BENCH_GPUS"  # what the controller hands to its jobs, e.g. 0,1,5
PRETEND = "EM_BENCH_PRETEND_GPUS"  # how many a machine without any is to show: for tests
VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_S = 0.2


def devices(wanted: int | None = None) -> tuple[str, ...]:
    """The first `wanted` GPUs of those that this process may use; None is all. Raises UserError where there are fewer."""
    found = _found() if wanted != 0 else ()
    if wanted is not None and wanted > len(found):
        raise UserError(
            f"--gpus {wanted}: this machine shows {len(found) or 'no'} GPU{'s' * (len(found) != 1)}; give at most {len(found)}"
        )
    return found if wanted is None else found[:wanted]


def _found() -> tuple[str, ...]:
    if PRETEND in os.environ:
        return tuple(map(str, range(int(os.environ[PRETEND]))))
    listed = _listed()
    return _visible(os.environ[VISIBLE], listed) if VISIBLE in os.environ else tuple(d for gpu in listed for d in gpu)


def _listed() -> list[tuple[str, ...]]:
    """Of each GPU in the driver's order its UUID, or those of its MIG instances where it is split; empty without a driver."""
    try:
        said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    gpus: list[tuple[str, ...]] = []
    for line in said.splitlines():
        uuid = re.search(r"UUID: ((?:GPU|MIG)-[^)]+)", line)
        if uuid and uuid[1].startswith("GPU"):
            gpus.append((uuid[1],))
        elif uuid and gpus:  # an instance of the GPU above, which by itself is no device any more
            gpus[-1] = (*(d for d in gpus[-1] if d.startswith("MIG")), uuid[1])
    return gpus


def _visible(text: str, listed: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The devices of CUDA_VISIBLE_DEVICES as CUDA reads it: up to the first word that names none, and none where one is named twice."""
    found: list[str] = []
    known = [d for gpu in listed for d in gpu]
    for word in (w.strip() for w in text.split(",")):
        if word.isdecimal():
            # Without a driver that lists them, the number is all that is known.
            of = listed[int(word)] if int(word) < len(listed) else () if listed else (word,)
            named = list(of[:1])  # of a split GPU CUDA shows the first instance
        else:
            named = [d for d in known if word and d.startswith(word)] if known else [word] * word.startswith(("GPU-", "MIG-"))
        if len(named) != 1:
            break
        found += named
    return () if len(set(found)) < len(found) else tuple(found)


@contextmanager
def leased(n: int, among: Sequence[str], folder: Path | None = None) -> Iterator[tuple[str, ...]]:
    """`n` of the devices, free ones, until the block ends or the process dies. Waits until there are as many."""
    folder = folder or Path(tempfile.gettempdir()) / f"em-bench-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        with ExitStack() as held:
            mine = []
            with open(folder / "all", "w") as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)  # all or none: two jobs with half of what they need would wait forever
                for device in among:
                    f = held.enter_context(open(folder / device.replace("/", "_"), "w"))
                    try:
                        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    mine.append(device)
                    if len(mine) == n:
                        break
            if len(mine) == n:
                yield tuple(mine)
                return
        time.sleep(POLL_S)


@contextmanager
def own_gpus(n: int) -> Iterator[None]:
    """Lease what a job needs of the devices that the controller named, and see no others. Elsewhere the cluster has chosen them."""
    if not n or not os.environ.get(DEVICES):
        yield
        return
    with leased(n, os.environ[DEVICES].split(",")) as mine:
        os.environ[VISIBLE] = ",".join(mine)
        print(f"GPUs {os.environ[VISIBLE]}", flush=True)
        yield
