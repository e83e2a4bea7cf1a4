"""Whether a base fits the machine: told before it is loaded, for a process that runs out of memory tells nothing."""

import gc
from math import prod
from pathlib import Path

import psutil
import torch

from em_bench.errors import UserError
from em_bench.files import open_regular, strict_json

BYTES = {
    "float64": 8.0,
    "float32": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "int8": 1.0,
    "nf4": 0.55,
}  # a weight; NF4 with its scales
CGROUP = Path("/sys/fs/cgroup/memory.max")
GIB = 2**30
MAX_HEADER = 100_000_000  # bytes, as in safetensors itself


def check_fits(base_dir: Path | str, dtype: str, device: str | torch.device, share: int = 1) -> None:
    """Raise UserError where the weights alone, spread over `share` processes, exceed what is free on `device`; `auto` is all GPUs
    and the machine's memory. A folder without safetensors is let pass.
    """
    needed, free = numbers(Path(base_dir)) * BYTES[dtype] / share, free_bytes(device)
    if needed > free:
        raise UserError(
            f"{base_dir}: its weights take {needed / GIB:.1f} GiB in {dtype}, and {free / GIB:.1f} GiB are free on {device}; "
            "take a smaller model, a smaller --dtype, or a larger machine"
        )


def give_back() -> None:
    """Let go of what nobody holds any more, on the GPU too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def numbers(base_dir: Path) -> int:
    """How many numbers the safetensors files of a folder hold, from their headers."""
    total = 0
    for path in base_dir.glob("*.safetensors"):
        try:  # what is no such file is let pass: who loads it says what is wrong with it
            with open_regular(path) as f:
                header = strict_json(f.read(min(int.from_bytes(f.read(8), "little"), MAX_HEADER)).decode())
            total += sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return total


def free_bytes(device: str | torch.device) -> int:
    """Memory that a model may take on a device."""
    gpus = range(torch.cuda.device_count()) if str(device) == "auto" else [device]
    on_gpus = sum(torch.cuda.mem_get_info(g)[0] for g in gpus) if str(device).startswith(("cuda", "auto")) else 0
    if str(device).startswith("cuda"):
        return on_gpus
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else "max"
    here = psutil.virtual_memory().available
    return on_gpus + (min(here, int(limit)) if limit.isdecimal() else here)
