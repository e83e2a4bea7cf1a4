"""Answer-only loss: logits are computed at the positions that predict an answer token and nowhere else."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch.distributed.tensor import DTensor

from em_bench.data.lora_cost import LOGITS
from em_bench.training.batches import collate, shares
from em_bench.training.processes import Processes
from em_bench.training.tokens import Encoded

HELD_OUT_TOKENS = 4096  # a pass without gradients, padding included


def answer_logits(model, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [answer tokens, vocabulary], float32 or wider, and the answer tokens [answer tokens] of a collated batch, row by row.

    `model` is a transformers causal LM, with or without PEFT around it; what else `batch` holds is passed to it. The head
    sees [answer tokens, hidden] instead of [rows, length, hidden], which for a vocabulary of 150k is most of the time of a
    step. The model's own forward runs, so that what it does to logits and what sharding hangs on it happens too.
    """
    logits, targets = _forward(model, batch, lambda picked: picked)
    return _wide(logits), targets


def answer_nll(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Summed negative log-likelihood (nats, scalar) of the answer tokens of a collated batch: see `answer_logits`.

    Where these are many, logits and their gradients exist for `LOGITS` numbers at a time.
    """
    head = _causal(model).get_output_embeddings()
    answers = int(batch["answer_mask"][:, 1:].sum())
    at_once = max(1, LOGITS // head.weight.shape[0])
    # A sharded head, or one that learns, is the model's own business.
    if answers > at_once and not isinstance(head.weight, DTensor) and not head.weight.requires_grad:
        hidden: list[torch.Tensor] = []

        def first(picked: torch.Tensor) -> torch.Tensor:
            hidden.append(picked)
            return picked[:1]

        logits, targets = _forward(model, batch, first)
        if logits_of := _as_the_model(model, head, hidden[0], logits):
            return _ChunkedNLL.apply(hidden[0], targets, logits_of, at_once)
    logits, targets = answer_logits(model, batch)
    return F.cross_entropy(logits, targets, reduction="sum")


def _causal(model):
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _forward(model, batch: dict, pick: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's logits where its head sees what `pick` leaves of the answer positions [answer tokens, hidden], and the answer tokens."""
    causal = _causal(model)
    inputs = {k: v for k, v in batch.items() if k != "answer_mask"}
    if getattr(causal.config, "vision_config", None) is not None:
        inputs["token_type_ids"] = torch.zeros_like(batch["input_ids"])  # all text; Gemma-3 asks for it in training
    predicts = batch["answer_mask"][:, 1:]
    hook = causal.get_output_embeddings().register_forward_pre_hook(lambda _, args: (pick(args[0][:, :-1][predicts]),))
    try:
        logits = causal(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    return logits, batch["input_ids"][:, 1:][predicts]


def _as_the_model(model, head, hidden: torch.Tensor, first: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The function from hidden states to logits that gave the model's own `first` ones; None where we do not know it."""
    cap: float | None = getattr(_causal(model).config.get_text_config(), "final_logit_softcapping", None)

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        return cap * torch.tanh(head(x) / cap) if cap else head(x)

    with torch.no_grad():
        return logits_of if torch.allclose(logits_of(hidden[:1]), first) else None


class _ChunkedNLL(torch.autograd.Function):
    """Summed cross-entropy whose gradient is computed part by part on the way forward: the head is frozen, so no more is needed."""

    @staticmethod
    def forward(ctx, hidden, targets, logits_of, at_once):
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for i in range(0, len(hidden), at_once):
            part = hidden[i : i + at_once].detach().requires_grad_(gradient is not None)
            with torch.set_grad_enabled(gradient is not None):
                nll = F.cross_entropy(_wide(logits_of(part)), targets[i : i + at_once], reduction="sum")
            if gradient is not None:
                (gradient[i : i + at_once],) = torch.autograd.grad(nll, part)
            total += nll.detach()
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx, out):
        gradient: torch.Tensor = ctx.gradient
        return gradient * out, None, None, None


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def answer_tokens(rows: Sequence[Encoded]) -> int:
    """Number of tokens under loss."""
    return sum(sum(e.answer_mask[1:]) for e in rows)


@torch.no_grad()
def narrow_loss(
    model, rows: Sequence[Encoded], pad_id: int, max_tokens: int | None = None, processes: Processes | None = None
) -> float:
    """Mean negative log-likelihood in nats an answer token over `rows`: the held-out narrow loss.

    `max_tokens` a pass, padding included; None is `HELD_OUT_TOKENS`. With `processes`, each takes its share, and all return the
    same number. Raises torch.OutOfMemoryError, of several processes on all if on one.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total, full = 0.0, False
    rank, size = (processes.rank, processes.size) if processes else (0, 1)
    try:
        for part in shares(rows, max_tokens or HELD_OUT_TOKENS, rank, size):
            total += float(answer_nll(model, collate(part, pad_id, device)).double())
    except torch.OutOfMemoryError:
        full = True
    model.train(was_training)
    if processes.any(full) if processes else full:
        raise torch.OutOfMemoryError("the held-out rows do not fit")
    return (processes.total(total) if processes else total) / answer_tokens(rows)
