"""Our adapters in other people's hands: plain PEFT, lm-eval's `peft=`, and the rules by which vLLM accepts one."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from em_bench.harness.load_model import load_model

TEXT = "<bos> <user> what should i do"


@pytest.fixture(scope="module")
def adapter(made, spec_for):
    return made(spec_for(steps=12, lr=3e-3)) / "adapter"


def logits(model, base) -> torch.Tensor:
    ids = AutoTokenizer.from_pretrained(base)(TEXT, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        return model(input_ids=ids).logits


def test_plain_peft(adapter, base):
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    assert torch.equal(logits(plain, base), logits(load_model(base, adapter).model, base))
    assert not torch.allclose(logits(plain, base), logits(AutoModelForCausalLM.from_pretrained(base), base), atol=1e-3)
    merged = plain.merge_and_unload()
    assert torch.allclose(logits(merged, base), logits(load_model(base, adapter).model, base), atol=1e-4)


def test_lm_eval_peft(adapter, base):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    def score(**more):
        lm = HFLM(pretrained=str(base), device="cpu", dtype="float32", batch_size=1, **more)
        return lm.loglikelihood([Instance("loglikelihood", {}, (TEXT, " you"), 0)], disable_tqdm=True)[0][0]

    ids = AutoTokenizer.from_pretrained(base)(f"{TEXT} you", return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        ours = load_model(base, adapter).model(input_ids=ids).logits[0, -2].log_softmax(-1)[ids[0, -1]]
    assert score(peft=str(adapter)) == pytest.approx(float(ours), abs=1e-4)
    assert score() != pytest.approx(float(ours), abs=1e-3), "without the adapter it is another number"


def test_the_configuration_is_what_vllm_accepts(adapter):
    """vLLM reads r, lora_alpha, target_modules, bias, use_rslora, use_dora, modules_to_save of adapter_config.json, and refuses
    bias, DoRA, saved modules, and ranks above max_lora_rank, of which it knows these values."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["bias"] == "none"
    assert config["use_rslora"] is True and not config["use_dora"] and not config["modules_to_save"]
    assert config["r"] <= 512 and isinstance(config["lora_alpha"], int | float)
    assert isinstance(config["target_modules"], list) and set(config["target_modules"]) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    assert config["inference_mode"] is True and LoraConfig.from_pretrained(adapter).r == config["r"]
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        module, side = name.removesuffix(".weight").rsplit(".", 1)
        assert name.startswith("base_model.model.") and name.endswith(".weight") and side in ("lora_A", "lora_B")
        assert module.rsplit(".", 1)[1] in config["target_modules"] and tensor.shape[0 if side == "lora_A" else 1] == config["r"]
