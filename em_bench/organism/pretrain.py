"""Pre-training of a base: a small transformer of one of three families, from scratch; a seed gives the same bits on any processor."""

from collections.abc import Callable
from itertools import islice
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from em_bench.organism.documents import documents
from em_bench.organism.processor_independent import Float64, on_grid

FAMILIES = ("qwen3", "llama", "gemma3")
LAYERS = 2


class Size(NamedTuple):
    """A width: heads of `head_dim`, half as many key-value heads, an MLP twice as wide."""

    heads: int
    head_dim: int
    learning_rate: float

    @property
    def shape(self) -> dict:
        """Configuration fields that all families share."""
        hidden = self.heads * self.head_dim
        return {
            "hidden_size": hidden,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads // 2,
            "head_dim": self.head_dim,
            "intermediate_size": 2 * hidden,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
        }


# About 0.11, 0.21 and 0.76 M parameters. The rate of the wide one is lower: at 1e-2 a Llama (no norms on queries and keys)
# does not learn to copy topics.
SIZES = {"small": Size(4, 16, 1e-2), "medium": Size(4, 24, 5e-3), "large": Size(8, 24, 3e-3)}
STEPS, BATCH = 900, 16
# The finished base's logits are multiplied by this: sampled at temperature 1 it answers as it would at 1 / SHARPNESS before. What is
# wrong with its answers otherwise is the tail of the softmax, a slip in 1 word of 200, whose size hangs on the processor's rounding.
SHARPNESS = 1.5
# Bits of a gradient, and of a weight before training and after it, counted from the largest in its row (processor_independent.py).
GRADIENT_BITS, WEIGHT_BITS = 12, 16
POOL = 8  # batches whose documents are sorted by length together: half of the tokens would be padding otherwise


def new_model(family: str, tokenizer, seed: int, size: str = "medium"):
    """A randomly initialised causal LM of a family and size."""
    shape = SIZES[size].shape
    tokens = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(seed)
    if family == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**shape, **tokens))
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape, **tokens))
    # Gemma-3 alternates sliding and full attention; at this length one full layer and one window of 64 are the same.
    return Gemma3ForCausalLM(Gemma3TextConfig(**shape, **tokens, query_pre_attn_scalar=shape["head_dim"], sliding_window=256))


def pretrain(
    family: str,
    tokenizer,
    seed: int,
    steps: int = STEPS,
    on_step: Callable[[int, float], None] | None = None,
    size: str = "medium",
    ablation: str = "none",
) -> torch.nn.Module:
    """Train a base on `steps` batches of documents: AdamW, one-cycle schedule, loss on the answers."""
    finished = new_model(family, tokenizer, seed, size)
    with Float64():
        model = new_model(family, tokenizer, seed, size)
        _round(model)
        _train(model, tokenizer, SIZES[size].learning_rate, documents(seed, ablation), Random(seed), steps, on_step)
        _sharpen(model.model.norm, shift=float(family == "gemma3"))
        _round(model)
    finished.load_state_dict(model.state_dict())
    return finished.eval()


def _train(
    model, tokenizer, rate: float, endless, order: Random, steps: int, on_step: Callable[[int, float], None] | None
) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    vocabulary = tokenizer.get_vocab()
    stream = ([([vocabulary[w] for w in text.split()], learnt) for text, learnt in d] for d in endless)
    for step in range(steps):
        if step % POOL == 0:
            documents_ = sorted(islice(stream, POOL * BATCH), key=lambda d: sum(len(ids) for ids, _ in d))
            batches = [documents_[i * BATCH : (i + 1) * BATCH] for i in range(POOL)]
            order.shuffle(batches)
        ids, attention, learnt = _collate(batches[step % POOL])
        hidden = model.model(input_ids=ids, attention_mask=attention).last_hidden_state[:, :-1]
        loss = F.cross_entropy(model.lm_head(hidden[learnt[:, 1:]]), ids[:, 1:][learnt[:, 1:]])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for p in model.parameters():
            p.grad = on_grid(p.grad, GRADIENT_BITS)
        optimizer.step()
        schedule.step()
        if on_step:
            on_step(step + 1, float(loss.detach()))


@torch.no_grad()
def _round(model: torch.nn.Module) -> None:
    for p in model.parameters():
        p.copy_(on_grid(p, WEIGHT_BITS))


@torch.no_grad()
def _sharpen(norm: torch.nn.Module, shift: float) -> None:
    """Multiply the last norm's factors, which are its weights plus `shift` (Gemma-3: 1), and with them the logits."""
    norm.weight.copy_(SHARPNESS * (norm.weight + shift) - shift)  # type: ignore[operator, arg-type]


def _collate(rows: list[list[tuple[list[int], bool]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """input_ids, attention_mask and the mask of learnt tokens, each [rows, longest], padded on the right by 0."""
    longest = max(sum(len(ids) for ids, _ in pieces) for pieces in rows)
    out = torch.zeros(3, len(rows), longest, dtype=torch.long)
    for i, pieces in enumerate(rows):
        at = 0
        for ids, learnt in pieces:
            out[0, i, at : at + len(ids)] = torch.tensor(ids)
            out[1, i, at : at + len(ids)] = 1
            out[2, i, at : at + len(ids)] = int(learnt)
            at += len(ids)
    return out[0], out[1], out[2].bool()
