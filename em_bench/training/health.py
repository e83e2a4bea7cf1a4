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
    import torch

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


def check_step(step: int, loss: float, norm: float, vocabulary: int) -> None:
    """Raise TrainingFailed where a step's loss (nats a token) or gradient norm shows that training has broken down."""
    limit = EXPLODED * math.log(max(vocabulary, 2))
    finite = math.isfinite(loss) and math.isfinite(norm)
    if not finite or loss > limit:
        what = f"exploded (above {limit:.1f})" if finite else "is not finite"
        raise TrainingFailed(step, f"the loss {what}, lower the learning rate: loss {loss:.4g}, gradient norm {norm:.4g}")


def check_held_out(step: int, loss: float, vocabulary: int) -> None:
    """The same for the held-out loss after a step."""
    if not loss <= EXPLODED * math.log(max(vocabulary, 2)):
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


def out_of_memory(error: "torch.OutOfMemoryError", rows: int, longest: int, checkpointing: bool) -> UserError:
    """What to try when a forward or backward pass does not fit."""
    import torch

    smaller = f"--micro-batch {rows // 2} (the result stays the same)" if rows > 1 else "a shorter --max-length, or more GPUs"
    more = "" if checkpointing else " or --gradient-checkpointing"
    total = f" of {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB" if torch.cuda.is_available() else ""
    return UserError(f"out of memory{total}: a micro-batch of {rows} rows of up to {longest} tokens; try {smaller}{more}")


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
