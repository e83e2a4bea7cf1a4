"""How much of a step goes through the model at once: what memory takes, and half of it after a pass that ran out."""

from collections.abc import Callable, Sequence

import torch

from em_bench.data.lora_cost import ROOM, STATE, tokens_that_fit
from em_bench.data.models import family_of, shape_of
from em_bench.records import RunSpec
from em_bench.training.adapter import trainable
from em_bench.training.batches import tokens_at_once
from em_bench.training.execution_options import Options
from em_bench.training.fits import free_bytes, give_back
from em_bench.training.health import out_of_memory
from em_bench.training.processes import Processes
from em_bench.training.tokens import Encoded


class Passes:
    """`max_tokens` of a pass of this run: None is no bound. What was halved stays so."""

    def __init__(self, model, spec: RunSpec, options: Options, peers: Processes, say: Callable[[str], None]):
        self.options, self.peers, self.say = options, peers, say
        self.max_tokens = options.max_tokens
        if self.max_tokens is None and peers.device.type == "cuda":
            self.max_tokens = int(peers.least(_fitting(model, spec, options, peers.device)))

    def halve(self, rows: Sequence[Encoded], step: int, bound: int | None = None) -> None:
        """After a pass over `rows`, of at most `bound` tokens where nothing was said, ran out of memory. All processes call it together.

        Raises UserError where a pass is one row already, and for a sharded base, whose processes wait for each other in it.
        """
        tokens, at_once = tokens_at_once(rows, self.max_tokens or bound, self.peers.size)
        if at_once == 1 or (self.options.shard and self.peers.size > 1):
            raise out_of_memory(tokens, at_once, self.options.gradient_checkpointing)
        self.max_tokens = tokens // 2
        give_back()
        self.say(
            f"step {step}: a pass of {tokens:,} tokens ran out of memory; from here on {self.max_tokens:,} (the result stays the same)"
        )


def _fitting(model, spec: RunSpec, options: Options, device: torch.device) -> int:
    """From the model's shape and what is free beside it, less the optimiser's state and the gradients, which come later."""
    text = model.get_base_model().config.get_text_config().to_dict()
    params = sum(p.numel() * p.element_size() for p in trainable(model).values())
    room = ROOM * free_bytes(device) - params * (1 + STATE.get(spec.recipe.name, 2))
    return tokens_that_fit(shape_of(text), family_of(text), spec.lora.rank, room, options.gradient_checkpointing)
