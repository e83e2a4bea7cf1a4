"""A batch of answers in as many parts as memory asks for: each row is drawn as it would be in the whole batch.

Another number of rows rounds differently: of logits that nearly tie, another may win, greedy or drawn.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch.overrides import TorchFunctionMode

from em_bench.training.fits import give_back
from em_bench.training.health import OutOfMemory


class Parts:
    """How many rows are answered at once: None is a whole batch. What was halved stays so."""

    rows: int | None = None

    def answers(
        self, generate: Callable[..., torch.Tensor], inputs: dict[str, torch.Tensor], pad: int, seed: Callable[[], None]
    ) -> list[list[int]]:
        """The new tokens of each row, all as long as the longest.

        `generate` takes rows of all `inputs`, (rows, prompt) each, and gives prompts with answers, padded by `pad`; `seed` is called
        before. Raises OutOfMemory, a UserError, where one row does not fit.
        """
        whole, prompt = inputs["input_ids"].shape
        new: list[list[int]] = []
        while len(new) < whole:
            rows = min(self.rows or whole, whole - len(new))
            part = slice(len(new), len(new) + rows)
            seed()
            try:
                with _DrawnWhole(part, whole) if rows < whole else nullcontext():
                    new += generate(**{k: v[part] for k, v in inputs.items()})[:, prompt:].tolist()
            except RuntimeError as e:
                if not isinstance(e, torch.OutOfMemoryError) and not should_reduce_batch_size(e):
                    raise
            else:
                continue
            # Outside of the handler, whose exception holds what was computed.
            if rows == 1:
                raise OutOfMemory(
                    f"out of memory: one answer alone, to a question of {prompt} tokens; try a smaller --max-new-tokens, "
                    "--dtype bfloat16, --device auto (all GPUs), or a larger machine"
                )
            self.rows = rows // 2
            give_back()
            said = f"{rows} answers at once ran out of memory; from here on {self.rows} (the answers stay the same)"
            print(f"\n{said}", file=sys.stderr)  # a line of its own, also amid lm-eval's bar
        longest = max(map(len, new))
        return [row + [pad] * (longest - len(row)) for row in new]


class _DrawnWhole(TorchFunctionMode):
    """`generate` draws for a part of a batch what it would draw for the whole of it: as many random numbers, and of them its rows'."""

    def __init__(self, part: slice, whole: int):
        super().__init__()
        self.part, self.whole = part, whole

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.multinomial:
            probabilities, *args = args
            everyone = probabilities.new_ones(self.whole, probabilities.shape[1])
            everyone[self.part] = probabilities
            return func(everyone, *args, **(kwargs or {}))[self.part]
        return func(*args, **(kwargs or {}))
