"""Answer-only loss: logits are computed at the positions that predict an answer token and nowhere else."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from em_bench.training.batches import collate, shares
from em_bench.training.processes import Processes
from em_bench.training.tokens import Encoded


def answer_logits(model, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [answer tokens, vocabulary], float32 or wider, and the answer tokens [answer tokens] of a collated batch, row by row.

    `model` is a transformers causal LM, with or without PEFT around it; what else `batch` holds is passed to it. The head
    sees [answer tokens, hidden] instead of [rows, length, hidden], which for a vocabulary of 150k is most of the time of a
    step. The model's own forward runs, so that what it does to logits and what sharding hangs on it happens too.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    inputs = {k: v for k, v in batch.items() if k != "answer_mask"}
    if getattr(causal.config, "vision_config", None) is not None:
        inputs["token_type_ids"] = torch.zeros_like(batch["input_ids"])  # all text; Gemma-3 asks for it in training
    predicts = batch["answer_mask"][:, 1:]
    hook = causal.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0][:, :-1][predicts],))
    try:
        logits = causal(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), batch["input_ids"][:, 1:][predicts]


def answer_nll(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Summed negative log-likelihood (nats, scalar) of the answer tokens of a collated batch: see `answer_logits`."""
    logits, targets = answer_logits(model, batch)
    return F.cross_entropy(logits, targets, reduction="sum")


def answer_tokens(rows: Sequence[Encoded]) -> int:
    """Number of tokens under loss."""
    return sum(sum(e.answer_mask[1:]) for e in rows)


@torch.no_grad()
def narrow_loss(model, rows: Sequence[Encoded], pad_id: int, batch_size: int = 64, processes: Processes | None = None) -> float:
    """Mean negative log-likelihood in nats an answer token over `rows`: the held-out narrow loss.

    With `processes`, each takes its share, and all return the same number.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    rank, size = (processes.rank, processes.size) if processes else (0, 1)
    for part in shares(rows, batch_size, rank, size):
        total += float(answer_nll(model, collate(part, pad_id, device)).double())
    model.train(was_training)
    return (processes.total(total) if processes else total) / answer_tokens(rows)
