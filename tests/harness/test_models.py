"""Loading a base with an adapter, and the canary."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from em_bench.errors import UserError
from em_bench.harness.load_model import adapted, load_model


def logits(loaded):
    with torch.inference_mode():
        return loaded.model(input_ids=torch.tensor([[5, 6, 7]])).logits


def test_the_base_comes_out_as_it_went_in(base, adapter):
    loaded = load_model(base)
    before = logits(loaded)
    with adapted(loaded, adapter) as ready:
        change = float((logits(ready) - before).abs().max())
        assert change > 0.01 and ready.canary.max_logit_change > 0.01
    assert torch.equal(logits(loaded), before)


def test_canary_refuses_an_adapter_that_changes_nothing(base, idle_adapter):
    with pytest.raises(UserError, match="changes no logit"):
        load_model(base, idle_adapter)
    loaded = load_model(base)
    before = logits(loaded)
    with pytest.raises(UserError, match="changes no logit"), adapted(loaded, idle_adapter):
        pass
    assert torch.equal(logits(loaded), before)


def test_what_is_no_adapter_is_refused(base, tmp_path):
    with pytest.raises(UserError, match="no PEFT adapter"):
        load_model(base, tmp_path)


def test_an_adapter_for_more_layers_is_refused(base, adapter, tmp_path):
    """PEFT loads what fits and leaves the rest out without a word."""
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    deeper = {k.replace("layers.0.", "layers.17."): v for k, v in tensors.items() if "layers.0." in k}
    save_file({k: v.clone() for k, v in (tensors | deeper).items()}, path)
    with pytest.raises(UserError, match=r"does not fit this base.*layers\.17"):
        load_model(base, folder)


def test_an_adapter_of_another_width_is_refused(base, adapter, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    path = folder / "adapter_model.safetensors"
    save_file({k: v[:, :-1].clone() if "lora_A" in k else v for k, v in load_file(path).items()}, path)
    with pytest.raises(UserError, match="does not fit this base"):
        load_model(base, folder)


@pytest.mark.parametrize(
    "options",
    [{"modules_to_save": ["lm_head"]}, {"modules_to_save": ["norm", "embed_tokens"]}, {"bias": "all"}, {"use_dora": True}],
    ids=str,
)
def test_a_base_that_an_adapter_changes_is_mended(bases, tmp_path, options):
    """PEFT's unload leaves modules_to_save and biases behind."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    config = Qwen2Config(
        vocab_size=600, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        tie_word_embeddings="norm" in options.get("modules_to_save", ()),
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")  # its projections have biases
    AutoTokenizer.from_pretrained(bases["qwen3"]).save_pretrained(tmp_path / "base")
    made = get_peft_model(load_model(tmp_path / "base").model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **options))
    with torch.no_grad():
        for p in made.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p))
    made.save_pretrained(tmp_path / "adapter")
    loaded = load_model(tmp_path / "base")
    before, values = logits(loaded), {k: v.clone() for k, v in loaded.model.state_dict().items()}
    with adapted(loaded, tmp_path / "adapter") as ready:
        first = logits(ready)
    with adapted(loaded, tmp_path / "adapter") as ready:
        assert torch.equal(logits(ready), first) and not torch.equal(first, before)
    assert torch.equal(logits(loaded), before)
    assert values.keys() == loaded.model.state_dict().keys()
    assert all(torch.equal(v, values[k]) for k, v in loaded.model.state_dict().items())


def test_a_base_comes_out_whole_where_an_adapter_is_refused_half_way(base, adapter, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    path = folder / "adapter_model.safetensors"
    save_file({k: v[:, :-1].clone() if "lora_A" in k else v for k, v in load_file(path).items()}, path)
    loaded = load_model(base)
    before, names = logits(loaded), [n for n, _ in loaded.model.named_modules()]
    with pytest.raises(UserError, match="does not fit this base"), adapted(loaded, folder):
        pass
    assert torch.equal(logits(loaded), before) and [n for n, _ in loaded.model.named_modules()] == names
