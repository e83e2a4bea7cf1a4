"""Starting a run on several GPUs of this machine: the same command again, once a GPU, by torchrun."""

import os
import sys
from collections.abc import Sequence

import torch

from em_bench.errors import UserError

_MAIN = "from em_bench.cli import main; main()"


def launched() -> bool:
    """Whether a launcher (torchrun, `accelerate launch`, a SLURM script) has started this process already."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(gpus: int, arguments: Sequence[str]) -> None:
    """Become torchrun with `gpus` processes of `em-bench ARGUMENTS` (without its --gpus). Does not return.

    Raises UserError where this machine has fewer GPUs. For several machines start torchrun yourself, on each.
    """
    seen = torch.cuda.device_count()
    if gpus > seen:
        has = "no GPU" if seen == 0 else f"{seen} GPU" + "s" * (seen > 1)
        raise UserError(
            f"--gpus {gpus}: this machine shows {has}; "
            + (f"give at most {seen}" if seen else "leave --gpus away to train on the CPU")
        )
    os.execv(sys.executable, command(gpus, arguments))


def command(processes: int, arguments: Sequence[str]) -> list[str]:
    """torchrun on this machine with `processes` processes of `em-bench ARGUMENTS`."""
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--no-python"]
    return [sys.executable, *run, sys.executable, "-c", _MAIN, *without_gpus(arguments)]


def without_gpus(arguments: Sequence[str]) -> list[str]:
    """The arguments less `--gpus N` or `--gpus=N`."""
    out, skip = [], False
    for a in arguments:
        if skip:
            skip = False
        elif a == "--gpus":
            skip = True
        elif not a.startswith("--gpus="):
            out.append(a)
    return out
