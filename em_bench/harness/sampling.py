"""Sampling that is all that responses.jsonl says: nothing of the checkpoint's generation_config.json but what ends an answer."""

import torch
from transformers import GenerationConfig

from em_bench.errors import UserError
from em_bench.records import Generation
from em_bench.training.chat_template import end_ids, pad_id

_SEED_STEP = 1_000_003  # between the seeds of batches


def settle(model, tokenizer) -> None:
    """Put on a model what `generate` fills the gaps of a request with: the ends of an answer, a pad, everything else off.

    transformers takes each setting that a caller leaves open from `model.generation_config`, and those that are open there
    too from its own defaults, of which top_k = 50 alone is not off. Raises UserError where nothing ends an answer.
    """
    ends = end_ids(tokenizer, model)
    if not ends:
        raise UserError(
            "end of an answer: neither the chat template, the tokenizer's eos_token nor the checkpoint's eos_token_id says it; set eos_token in tokenizer_config.json"
        )
    config = GenerationConfig(eos_token_id=ends, pad_token_id=pad_id(tokenizer), top_k=0)
    for held in (model, model.get_base_model() if hasattr(model, "get_base_model") else model):
        held.generation_config = config  # a PEFT model passes its own on to the base


def sampling(g: Generation) -> dict:
    """`generate`'s settings for a request."""
    if g.temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": g.temperature, "top_p": g.top_p, "top_k": g.top_k}


def seed_batch(seed: int | None, batch: int) -> None:
    """Make the samples of the batch of this number depend on nothing but it and the seed; without a seed, do nothing."""
    if seed is not None:
        torch.manual_seed(seed + _SEED_STEP * batch)
