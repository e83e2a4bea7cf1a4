"""When a run must stop, and what it says then."""

import errno
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from safetensors import SafetensorError

from em_bench.errors import UserError
from em_bench.files import disk_full, write_record
from em_bench.machine import utc_now
from em_bench.records import Record
from em_bench.run_folder import RunFolder

if TYPE_CHECKING:
    pass

FILE = "failed.json"
EXPLODED = 3.0  # times the loss of guessing uniformly: nothing that learns comes near it


class TrainingFailed(RuntimeError):
    """The run cannot go on. The message says at which step (from 1), on which rows, and why."""

    def __init__(self, step: int, reason: str, rows: Sequence[int] = ()):
        self.step, self.reason, self.rows = step, reason, tuple(rows)
        super().__init__(f"step {step}: {reason}" + (f" on rows {list(rows)}" if rows else ""))


class Failure(Record):
    """failed.json of a run in the making: the same spec would fail the same way."""

    schema_version: str = "em_bench.failed/1"
    step: int = Field(description="the step, from 1")
    rows: tuple[int, ...] = Field(description="its rows, by number among the dataset's training rows")
    reason: str
    last_checkpoint: int | None = Field(description="last step under checkpoints/; None: there is none")
    when: str


def exploded_above(vocabulary: int, untrained: float = 0.0) -> float:
    """The loss (nats a token) above which a run has broken down: far above guessing, and above what a base had to whom its data are foreign."""
    return max(EXPLODED * math.log(max(vocabulary, 2)), 2 * untrained)


def check_step(step: int, loss: float, norm: float, limit: float) -> None:
    """Raise TrainingFailed where a step's loss (nats a token) or gradient norm shows that training has broken down."""
    finite = math.isfinite(loss) and math.isfinite(norm)
    if not finite or loss > limit:
        what = f"exploded (above {limit:.1f})" if finite else "is not finite"
        raise TrainingFailed(step, f"the loss {what}, lower the learning rate: loss {loss:.4g}, gradient norm {norm:.4g}")


def check_held_out(step: int, loss: float, limit: float) -> None:
    """The same for the held-out loss after a step."""
    if not loss <= limit:
        raise TrainingFailed(step, f"the held-out loss is {loss:.4g} after it, lower the learning rate: updated")


@contextmanager
def stops_marked(folder: Path | None, rows: Callable[[], Sequence[int]]) -> Iterator[None]:
    """Give a TrainingFailed inside the block the numbers of the step's `rows`, and write failed.json where there is a folder.

    Log and checkpoints stay.
    """
    try:
        yield
    except TrainingFailed as e:
        failed = TrainingFailed(e.step, e.reason, rows())
        if folder:
            steps = RunFolder(folder).checkpoint_steps()
            last = max(steps, default=None)
            record = Failure(step=e.step, rows=failed.rows, reason=e.reason, last_checkpoint=last, when=utc_now())
            write_record(folder / FILE, record)
        raise failed from None


class OutOfMemory(UserError):
    """A pass that cannot be made smaller does not fit."""


def out_of_memory(tokens: int, rows: int, checkpointing: bool) -> OutOfMemory:
    """What to try when a pass that cannot be made smaller does not fit; or one of a sharded base, whose processes wait for each other."""
    import torch

    smaller = f"--max-tokens {tokens // 2} (the result stays the same)" if rows > 1 else "a shorter --max-length, or more GPUs"
    more = "" if checkpointing else " or --gradient-checkpointing"
    total = f" of {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB" if torch.cuda.is_available() else ""
    what = f"{rows} rows, {tokens} tokens with padding" if rows > 1 else f"one row of {tokens} tokens"
    return OutOfMemory(f"out of memory{total}: a pass of {what}; try {smaller}{more}")


def spoils(error: BaseException) -> bool:
    """Whether an error, or what it came from, is the GPU's: out of memory, or a context in which nothing works any more."""
    import torch

    if isinstance(error, OutOfMemory | torch.OutOfMemoryError | torch.AcceleratorError):
        return True
    said = isinstance(error, RuntimeError) and re.search(r"CUDA error|CUDNN_STATUS|CUBLAS_STATUS|NCCL", str(error))
    cause = error.__cause__ or error.__context__
    return bool(said) or (cause is not None and spoils(cause))


def disk_error(error: OSError | SafetensorError, folder: Path) -> UserError | None:
    """The user's view of a file system that is full or closed; None for other errors."""
    if isinstance(error, SafetensorError):  # is no OSError, and has the number in its text alone
        said = re.search(r"os error (\d+)", str(error))
        error = OSError(int(said[1]), os.strerror(int(said[1]))) if said else OSError()
    where = error.filename or folder
    if full := disk_full(OSError(error.errno, error.strerror), folder):
        return UserError(f"{full}: it goes on where it was")
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS | errno.ENOENT:
            return UserError(f"{where}: cannot be written ({error.strerror}); name another folder with --out")
        case errno.ENOTDIR | errno.EEXIST:
            return UserError(f"{where}: is a file, not a folder; name a folder with --out")
    return None
