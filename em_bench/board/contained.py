"""A stranger's entry read in a process of its own: little memory, time and files, nothing written, no network where the system allows."""

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, TypeVar

from em_bench.errors import UserError

T = TypeVar("T")
# Loaded before the limits hold: importing torch wants a folder that it may write to, and none of this is the entry's.
LOADED = (
    "pyarrow.compute",
    "pyarrow.parquet",
    "torch",
    "safetensors.torch",
    "pytorch_optimizer",
    "em_bench.spectral",
    "em_bench.analysis.preset_figures",
)
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # of linux/sched.h


class Limits(NamedTuple):
    """What the process may use."""

    memory: int = 2**30  # bytes, beyond what the program itself takes
    seconds: int = 120  # of the processor
    clock: float = 600.0  # seconds until it is done, on however busy a machine
    files: int = 256  # open at once


class Killed(Exception):
    """The process did not come to an end of its own; the text says why."""


def contained(work: Callable[..., T], *args: object, limits: Limits | None = None) -> T:
    """What `work(*args)` returns, from a child process. Raises Killed, and UserError where the work did.

    The child is forked, so that what is loaded need not be loaded again; what it returns is pickled.
    """
    limits = limits or Limits()
    for name in LOADED:
        importlib.import_module(name)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, work, args, limits), daemon=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child.start()
    theirs.close()
    try:
        said = ours.recv() if ours.poll(limits.clock) else ("late", None)
    except EOFError:
        said = ("gone", None)
    finally:
        ours.close()
        if child.is_alive():
            child.join(0.5)
            child.kill()
        child.join()
    return _outcome(said, child.exitcode, limits)


def _outcome(said: tuple[str, T], exitcode: int | None, limits: Limits) -> T:
    kind, value = said
    if kind == "done":
        return value
    if kind == "user":
        raise UserError(str(value))
    if kind == "late":
        raise Killed(f"not done after {limits.clock:g} s")
    if kind == "memory":
        raise Killed(f"needs more than {limits.memory >> 20} MiB of memory")
    if kind == "error":
        raise Killed(f"cannot be checked ({value})")
    if exitcode == -signal.SIGXCPU:
        raise Killed(f"needs more than {limits.seconds} s of the processor")
    raise Killed(f"its process ended with {signal.Signals(-exitcode).name if exitcode and exitcode < 0 else f'code {exitcode}'}")


def _child(to: Connection, work: Callable, args: tuple, limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    try:
        confine(limits)
        said = ("done", work(*args))
    except UserError as e:
        said = ("user", str(e))
    except MemoryError:
        said = ("memory", None)
    except Exception as e:
        said = ("error", type(e).__name__)
    try:
        to.send(said)
    except MemoryError:
        to.send(("memory", None))
    except OSError:
        pass  # nobody waits any more
    os._exit(0)


def confine(limits: Limits) -> None:
    """Bind this process to its limits, for good."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # a pool of threads does not survive the fork
    _limit(resource.RLIMIT_CPU, limits.seconds)
    _limit(resource.RLIMIT_NOFILE, limits.files)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError, ValueError):  # no /proc: another system, whose RLIMIT_AS does nothing
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.memory)
    without_network()


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, hard))  # soft alone: the signal of the processor's time says which limit it was


def without_network() -> bool:
    """Move this process to a network of its own, in which there is nothing; returns whether the system allows it."""
    if not sys.platform.startswith("linux"):
        return False
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    # First without a new user: in one, root may no longer read what belongs to others.
    return unshare(CLONE_NEWNET) == 0 or unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0
