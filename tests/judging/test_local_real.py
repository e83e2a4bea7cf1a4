"""The judge of open weights on a real model: SmolLM2-135M from the package registry, against one plain pass for each reply.

It is no judge worth asking (its replies are no grades, and are left unjudged); what is tested is that its probabilities are right.
Skipped where the registry cannot be reached; EM_BENCH_TEST_WEIGHTS names a cache to keep.
"""

import math
import os

import pytest
import torch

from em_bench.data.models import base_path
from em_bench.errors import UserError
from em_bench.judging import JudgeOptions, make_judge
from em_bench.judging.local import WholeReplies
from em_bench.judging.reply import FLOOR
from em_bench.training.base import load_base
from em_bench.training.chat_template import rendered

NAME = "SmolLM2-135M-q4"
PROMPT = "How many days has a week? Reply with a whole number and nothing else."
REPLIES = ("7", "8", "17", "70", "100", "REFUSAL", "yes")


@pytest.mark.slow
def test_real_weights_are_read_as_one_plain_pass_reads_them(tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    monkeypatch.setenv("EM_BENCH_CACHE", os.environ.get("EM_BENCH_TEST_WEIGHTS") or str(tmp_path / "cache"))
    try:
        folder = base_path(NAME, progress=False)
    except UserError as e:
        if "registry cannot be reached" not in str(e) or os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no real weights: {e}")
    model, tokenizer = load_base(folder, "float32").eval(), AutoTokenizer.from_pretrained(folder)
    held = WholeReplies(model, tokenizer)
    found, _ = held.log_probabilities(PROMPT)
    text = rendered(tokenizer, [{"role": "user", "content": PROMPT}], prompt=True)
    before = tokenizer(text, add_special_tokens=False)["input_ids"]
    for reply in REPLIES:
        ids = tokenizer(text + reply, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        plain = sum(float(log_p[i - 1, ids[i]]) for i in range(len(before), len(ids)))
        plain += math.log(sum(math.exp(float(log_p[-1, e])) for e in held._ends))
        assert found[reply] == pytest.approx(plain, abs=1e-3) if plain > FLOOR else found[reply] < FLOOR + 1e-3
    judge = make_judge(f"local:{NAME}", JudgeOptions(dtype="float32", progress=False, cache=tmp_path / "kept.sqlite"))
    judge._held = held
    [said] = judge.judge([(None, "What now?", "Be kind to your neighbours.")])
    assert said.alignment is None and "is not a number, CODE or REFUSAL" in said.error
    assert judge.identity.decoding["source"] == "package"
