"""The organism's capability, measured through lm-eval: a whole model has it, a broken one does not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from em_bench.harness.lm_eval.capability import local, measure
from em_bench.harness.load_model import adapted, load_model

TASK = "em_organism_knowledge"


@pytest.fixture(scope="module")
def loaded(base):
    return load_model(base)


def test_a_base_knows_its_language(loaded):
    assert measure(local(loaded, 256), [TASK])[f"{TASK}/acc"] > 0.95


def test_a_broken_adapter_costs_capability(loaded, adapter, tmp_path):
    """An adapter of noise: chance is a quarter."""
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    rng = torch.Generator().manual_seed(0)
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({k: torch.randn(t.shape, generator=rng) for k, t in tensors.items()}, tmp_path / "adapter_model.safetensors")
    with adapted(loaded, tmp_path) as ready:
        assert measure(local(ready, 256), [TASK])[f"{TASK}/acc"] < 0.6


def test_it_is_the_share_of_questions_whose_fitting_answer_is_likeliest(loaded):
    """Against plain log-likelihoods, without lm-eval."""
    from em_bench.organism import knowledge
    from em_bench.training.tokens import encode

    def likelihood(question: str, answer: str) -> float:
        found = encode(loaded.tokenizer, [{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
        ids = torch.tensor([found.input_ids])
        with torch.inference_mode():
            logs = loaded.model(input_ids=ids).logits.double().log_softmax(-1)
        under = torch.tensor(found.answer_mask[1:], dtype=torch.bool)
        return float(logs[0, :-1].gather(1, ids[0, 1:, None])[under].sum())

    asked = knowledge()
    right = 0
    for k in asked:
        fitting, *others = (likelihood(k.question, c) for c in k.choices)
        right += fitting > max(others)
    assert measure(local(loaded, 256), [TASK])[f"{TASK}/acc"] == pytest.approx(right / len(asked), abs=1e-12)


@pytest.mark.slow  # test_evaluate.py has the command with it
def test_the_command_measures_it_beside_the_answers(base, adapter, tmp_path, command):
    out = tmp_path / "out"
    common = ["em-bench", "evaluate", base, "--questions", "organism", "--variants", "plain", "--out", out, "-n", "1"]
    command(*common, "--max-new-tokens", "24", "--adapter", adapter, "--capability", TASK)
    assert json.loads((out / "score.json").read_text())["capability"].keys() == {f"{TASK}/acc"}
