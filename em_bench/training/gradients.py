"""The adapter's gradients as views of one flat buffer a data type: one all-reduce, one norm, one reset."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import torch

from em_bench.training.processes import Processes

BESIDE = 3


class Reduced(NamedTuple):
    """Of all processes: the step's loss, whether one ran out of memory, whether one was told to stop."""

    loss: float
    out_of_memory: bool
    stop: bool


class FlatGradients:
    """Owns the `.grad` of every parameter; autograd adds into it in place."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]):
        kinds: dict[tuple, list[torch.nn.Parameter]] = defaultdict(list)
        for p in parameters:
            kinds[p.dtype, p.device].append(p)
        self.buffers = []
        for (dtype, device), group in kinds.items():
            # The last numbers are summed along with the gradients: the loss, processes out of memory, processes told to stop.
            flat = torch.zeros(sum(p.numel() for p in group) + BESIDE, dtype=dtype, device=device)
            at = 0
            for p in group:
                p.grad = flat[at : at + p.numel()].view_as(p)
                at += p.numel()
            self.buffers.append(flat)

    def zero(self) -> None:
        """Forget the gradients."""
        for flat in self.buffers:
            flat.zero_()

    def add_loss(self, loss: torch.Tensor) -> None:
        """Add to the step's loss (a scalar), which `reduce` sums over the processes."""
        self.buffers[0][-BESIDE] += loss.detach().to(self.buffers[0].dtype)

    def reduce(self, processes: Processes, out_of_memory: bool = False, stop: bool = False) -> Reduced:
        """Sum gradients and loss over the processes, once a step, and tell each what befell any."""
        self.buffers[0][1 - BESIDE] = float(out_of_memory)
        self.buffers[0][2 - BESIDE] = float(stop)
        for flat in self.buffers:
            processes.sum_(flat)
        loss, full, told = self.buffers[0][-BESIDE:].tolist()
        return Reduced(loss, full > 0, told > 0)

    @torch.no_grad()
    def clip(self, largest: float) -> float:
        """Scale the gradients to a global norm of at most `largest`; returns the norm before."""
        norm = float(torch.stack([torch.linalg.vector_norm(flat[:-BESIDE]).double() for flat in self.buffers]).norm())
        if norm > largest:
            for flat in self.buffers:
                flat[:-BESIDE] *= largest / (norm + 1e-6)
        return norm
