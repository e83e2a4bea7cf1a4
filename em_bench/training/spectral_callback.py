"""The spectral term in anybody's run: a callback of transformers' Trainer, and of all that are made of it (TRL's SFTTrainer)."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from em_bench.errors import UserError
from em_bench.flatness import SpectralTerm
from em_bench.protocol import FLATNESS
from em_bench.spectral import LoraPair, add_penalty_gradients, lora_pairs
from em_bench.training.adapter import expert_counts, trainable


class SpectralCallback(TrainerCallback):
    """Adds `weight` x the mean flatness gap of the LoRA updates to the loss of a run, and logs it as `spectral_term`.

        SFTTrainer(..., peft_config=LoraConfig(...), callbacks=[em_bench.SpectralCallback(0.1)])

    The gradient of a step is that of em_bench's own trainer: the term's is added to the loss's (of all accumulated batches and
    processes), then both are clipped together by `max_grad_norm`. The loss that the Trainer logs is without the term, and its
    `grad_norm` that of the loss alone, before clipping. docs/protocol.md, 3 has the formula.

    weight: at least 0; 0 changes nothing. flatness: an entry of `em_bench.flatness.MEASURES`. Raises UserError when training begins for a
    model without LoRA factors to train, and under fp16 (whose gradients are scaled), DeepSpeed or FSDP (which shard them).
    """

    def __init__(self, weight: float, flatness: str = FLATNESS):
        if not 0 <= weight < float("inf"):
            raise UserError(f"SpectralCallback({weight!r}): the weight is a number from 0")
        self.term = SpectralTerm(weight, flatness)
        _ = self.term.measure  # of an unknown name, said here
        self.last: float | None = None
        self._pairs: list[LoraPair] = []
        self._largest = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Find the factors; take over the clipping, which must see the term."""
        if args.fp16 or args.deepspeed or args.fsdp:
            raise UserError("SpectralCallback: knows no fp16, DeepSpeed or FSDP; train in bf16 or float32, one process a GPU")
        model = kwargs["model"]
        self._pairs = lora_pairs(trainable(model), expert_counts(model))
        if not self._pairs:
            raise UserError("SpectralCallback: the model has no LoRA factors to train; give the trainer a peft_config")
        self._largest, args.max_grad_norm = args.max_grad_norm or 0.0, 0.0

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the term's gradient, and clip."""
        from torch.nn.utils import clip_grad_norm_

        self.last = add_penalty_gradients(self._pairs, self.term)
        if self._largest:
            clip_grad_norm_(trainable(kwargs["model"]).values(), self._largest)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The term before its weight, at the last step."""
        if self.last is not None and "loss" in (logs := kwargs.get("logs") or {}):
            logs["spectral_term"] = self.last
            if state.log_history:  # made before callbacks are asked
                state.log_history[-1]["spectral_term"] = self.last

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Give the clipping back."""
        args.max_grad_norm = self._largest
