"""The processes of a run: one, or as many as torchrun, `accelerate launch` or SLURM started with the usual variables.

The frozen base may be sharded; the adapter is whole on every process. Each process takes its share of a step's rows, one
all-reduce sums the gradients, and every process makes the same update, so that none of them ever differ.
"""

import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cache
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist

from em_bench.errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(hours=6)  # the first process may have to download a base while the others wait, on the CPU
HUNG = timedelta(minutes=15)  # GPUs that wait longer for each other have lost one


class Processes(NamedTuple):
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    def agree(self, work: Callable[[], T]) -> T:
        """What `work` returns on the first process, on all of them; its UserError too. The others wait."""
        if self.size == 1:
            return work()
        said: list = [None, None]
        patient = _patient()
        if self.first:
            try:
                said = [work(), None]
            except UserError as e:
                said = [None, str(e)]
            except BaseException as e:
                dist.broadcast_object_list([None, f"the first process failed: {type(e).__name__}: {e}"], group=patient)
                raise
        dist.broadcast_object_list(said, group=patient)
        if said[1] is not None:
            raise UserError(said[1])
        return said[0]

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give every process the first one's values."""
        if self.size > 1:
            with torch.no_grad():
                for t in tensors:
                    dist.broadcast(t.data, src=0)

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def total(self, value: float) -> float:
        """A number summed over the processes, in float64."""
        if self.size == 1:
            return value
        return float(self.sum_(torch.tensor(value, dtype=torch.float64, device=self.device)))

    def least(self, value: float) -> float:
        """The smallest of a number over the processes."""
        if self.size == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return float(found)

    def any(self, happened: bool) -> bool:
        """Whether something happened on at least one process."""
        return self.total(float(happened)) > 0

    def differ(self, tensors: Iterable[torch.Tensor]) -> bool:
        """Whether the processes hold different values, by a checksum that notices a change of any bit."""
        if self.size == 1:
            return False
        mine = torch.zeros(2, dtype=torch.int64, device=self.device)
        for t in tensors:
            bits = t.detach().contiguous().view(torch.uint8).to(torch.int64).flatten()
            place = torch.arange(1, bits.numel() + 1, device=bits.device) % 65521
            mine = mine * 31 + torch.stack([bits.sum(), (bits * place).sum()])
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(gathered, mine)
        return any(not torch.equal(gathered[0], other) for other in gathered)


@cache
def processes() -> Processes:
    """Join the peers that the environment names (WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), if any.

    Raises UserError where a process has no GPU of its own although the machine has some.
    """
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.device_count()
    if gpus and size > 1 and local >= gpus:
        raise UserError(f"process {local} of this machine has no GPU ({gpus} seen); start at most {gpus} processes here")
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    if size == 1:
        return Processes(0, 1, device)
    if not dist.is_initialized():
        if gpus:
            dist.init_process_group("cpu:gloo,cuda:nccl", timeout=HUNG, device_id=device)
        else:
            dist.init_process_group("gloo", timeout=PATIENCE)
    return Processes(dist.get_rank(), dist.get_world_size(), device)


@cache
def _patient() -> dist.ProcessGroup | None:
    """Who waits for the first process's files and downloads: on the CPU, and for long. None is the group of all."""
    return dist.new_group(backend="gloo", timeout=PATIENCE) if torch.cuda.is_available() else None


def leave() -> None:
    """Say goodbye to the peers; a process that just ends leaves them a warning."""
    if dist.is_initialized():
        dist.destroy_process_group()
        processes.cache_clear()
        _patient.cache_clear()
