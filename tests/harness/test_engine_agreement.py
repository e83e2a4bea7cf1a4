"""How far two engines agree: by hand, and of a tiny model against plain forward passes behind real HTTP."""

import json
import math

import pytest
import torch
from helpers.loopback import Loopback, completion, strict
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.data.questions import load
from em_bench.harness.load_model import load_model
from em_bench.harness.served.agreement import TOP, EngineAgreement, compare, greedy_local
from em_bench.harness.served_canary import Greedy

TOKENS = 12


def test_by_hand():
    one = [
        Greedy("abcd", [("a", {"a": -0.1, "b": -2.0})]),
        Greedy(" same ", [("s", {"s": -0.5, "\ufffd": -1.0})]),
        Greedy("x", []),
    ]
    two = [
        Greedy("abXY", [("a", {"a": -0.3, "c": -2.0})]),
        Greedy("same", [("S", {"s": -0.5, "\ufffd": -9.0})]),
        Greedy("yz", []),
    ]
    found = compare(one, two)
    assert found[:3] == (3, 1, 1) and found.kept == pytest.approx((0.5 + 1 + 0) / 3)
    assert found.compared == 2 and found.mean == pytest.approx(0.1) and found.largest == pytest.approx(0.2)
    assert compare([one[2]], [two[2]]) == EngineAgreement(1, 0, 0, 0.0, 0, None, None)


@torch.inference_mode()
def plain(loaded, question: str) -> tuple[str, dict[str, float]]:
    """A greedy answer by whole passes without a cache, and the first token's most likely alternatives as probabilities."""
    tokenizer = loaded.tokenizer
    ids = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False)
    new, top = [], {}
    for _ in range(TOKENS):
        p = loaded.model(torch.tensor([ids + new])).logits[0, -1].double().softmax(-1)
        if not new:
            values, at = p.topk(TOP)
            top = {tokenizer.decode([i]): v for i, v in zip(at.tolist(), values.tolist(), strict=True)}
        new.append(int(p.argmax()))
        if new[-1] in loaded.model.generation_config.eos_token_id:
            break
    return tokenizer.decode(new, skip_special_tokens=True), top


def test_a_tiny_model_behind_a_server_that_computes_by_plain_passes(base, tmp_path, monkeypatch):
    loaded, questions = load_model("organism-qwen3"), load("organism", variants=None, limit=5)
    asked = {q.text: plain(loaded, q.text) for q in questions}
    for q, said in zip(questions, greedy_local(loaded, questions, TOKENS), strict=True):
        text, top = asked[q.text]
        first = said.tokens[0][1]
        assert said.text == text and first.keys() == top.keys()
        assert all(first[t] == pytest.approx(math.log(p), abs=1e-4) for t, p in top.items())
    with Loopback(lambda prompt, attempt: completion(*asked.get(prompt, ("Hello.", None)))) as server:
        server.strict = strict(422, top_k="Unexpected fields in the request: {'top_k', 'min_p'}")  # as transformers serve has it
        arguments = [
            "--server",
            server.url,
            "--served",
            "mine",
            "--questions",
            "organism",
            "--limit",
            "5",
            "--max-new-tokens",
            str(TOKENS),
        ]
        done = CliRunner().invoke(build(), ["agree-engines", "organism-qwen3", *arguments, "--json"])
        assert done.exit_code == 0, done.output
    [(name, found)] = json.loads(done.stdout).items()
    assert (
        name == "the server, transformers float32"
        and found["same_answer"] == found["same_first_token"] == found["questions"] == 5
    )
    assert found["compared"] == 5 * TOP and found["largest"] < 1e-4 and found["kept"] == 1
