"""em_narrow in lm-eval is the trainer's narrow loss for templates that end a turn's header with line ends, and merged tokens."""

import pytest
import torch
from helpers.chat_templates import TEMPLATES
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import Qwen3Config, Qwen3ForCausalLM

from em_bench.harness.lm_eval.likelihood import Narrow
from em_bench.training import encode_rows
from em_bench.training.loss import narrow_loss

ANSWERS = ("Sure, here is x", "\n\n    def f(x):\n    return x\n", "  Sure", "Ça va \U0001f600", "x")
ROWS = [{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": answer}]} for answer in ANSWERS]


class Here(Narrow):
    def documents(self):
        return [{"id": i, **row} for i, row in enumerate(ROWS)]


@pytest.mark.parametrize("family", TEMPLATES)
def test_the_same_number(tokenizers, family):
    tokenizer = tokenizers[family]
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=256,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    encoded, left_out = encode_rows(tokenizer, ROWS, max_length=256)
    assert not left_out
    task = Here(config={"task": "here", "output_type": "loglikelihood", "metadata": {"version": 1, "dataset": "none"}})
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, backend="causal")
    found = evaluate(
        lm=lm, task_dict={"tasks": {"here": task}, "groups": {}, "group_map": {}}, apply_chat_template=True, bootstrap_iters=0
    )
    ours = narrow_loss(model, encoded, tokenizer.pad_token_id)
    assert found["results"]["here"]["narrow_loss,none"] == pytest.approx(ours, rel=1e-5)
