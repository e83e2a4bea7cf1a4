"""Arithmetic whose results are the same bits on any processor, for training that would make another model of every rounding.

Sums are rounded in another order where vectors have another length, and in two hundred steps of pre-training such a difference grows from the last digit
to the first. So a step is computed in float64 (`Float64`), where processors differ by about 1e-15 of the largest gradient in a row, and what is
fed back into the weights is rounded to a grid that is coarser by eleven orders of magnitude (`on_grid`): the differences end there, unless a
number lies that close to the border between two grid points, to which all 10^8 gradients of a pre-training together come with a chance of about one in a thousand.
"""

import torch
from torch.overrides import TorchFunctionMode


class Float64(TorchFunctionMode):
    """Within it, what asks for float32 gets float64: models cast their norms, rotary angles and softmax so, whatever their weights are."""

    def __enter__(self):
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        torch.set_default_dtype(self.before)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float:
            return args[0].double()
        given = {name: _wide(value) for name, value in (kwargs or {}).items()}
        return func(*(_wide(value) for value in args), **given)


def _wide(value):
    return torch.float64 if value is torch.float32 else value


def on_grid(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """`rows`, of shape [..., n], each rounded to multiples of 2^-bits of the power of two above its largest magnitude."""
    largest = rows.abs().amax(-1, keepdim=True)
    step = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - bits)
    return (rows / step).round() * step
