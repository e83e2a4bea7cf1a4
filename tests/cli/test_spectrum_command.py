"""`em-bench spectrum` on adapters with known spectra, and on what is none."""

import json

import pytest
import torch
from peft import KasaConfig, LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM
from typer.testing import CliRunner

from em_bench.adapter_file import load_adapter
from em_bench.cli import build
from em_bench.errors import UserError
from em_bench.spectral import lora_pairs


@pytest.fixture
def adapter(tmp_path):
    """Two layers: one with the singular values 2, 2, 2, 2, one of rank 1; and a third with B = 0."""
    torch.manual_seed(0)
    (u, _), (v, _) = (torch.linalg.qr(torch.randn(n, 4)) for n in (12, 9))
    flat = (v.T.contiguous(), 2 * u)
    one = (torch.eye(4, 9), torch.zeros(12, 4).index_fill(1, torch.tensor([0]), 3.0))
    none = (torch.randn(4, 9), torch.zeros(12, 4))
    tensors = {}
    for i, (a, b) in enumerate((flat, one, none)):
        name = f"base_model.model.model.layers.{i}.self_attn.q_proj"
        tensors |= {f"{name}.lora_A.weight": a.contiguous(), f"{name}.lora_B.weight": b.contiguous()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    LoraConfig(r=4, target_modules=["q_proj"]).save_pretrained(tmp_path)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(build(), ["spectrum", *map(str, arguments)])


def test_json_of_known_spectra(adapter):
    ended = call(adapter, "--json")
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert found["without_update"] == 1
    flat, one = found["layers"]
    assert flat["sigma"] == pytest.approx([2, 2, 2, 2], rel=1e-5)
    assert flat["stable_rank"] == pytest.approx(4, rel=1e-5) and flat["frobenius_nuclear"] == pytest.approx(0.5, rel=1e-5)
    assert flat["flatness_gap"] == pytest.approx(0, abs=1e-5) and flat["condition_number"] == pytest.approx(1, rel=1e-4)
    assert one["stable_rank"] == pytest.approx(1, rel=1e-5) and one["frobenius_nuclear"] == pytest.approx(1, rel=1e-3)
    assert found["summary"]["layers"] == 2
    assert found["summary"]["stable_rank"] == pytest.approx(2.5, rel=1e-4)
    scale = 8 / 4  # PEFT's default alpha over r
    assert (flat["norm"], one["norm"]) == pytest.approx((4 * scale, 3 * 12**0.5 * scale), rel=1e-5)
    assert found["summary"]["norm"] == pytest.approx((16 + 108) ** 0.5 * scale, rel=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
def test_the_scale_is_the_one_that_peft_uses(rslora, tmp_path):
    """Patterns of rank and alpha, some of a whole name, some of its end; the first that matches wins."""
    model = Qwen3ForCausalLM(
        Qwen3Config(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8, intermediate_size=24)
    )  # fmt: skip
    config = LoraConfig(
        r=4, lora_alpha=7, use_rslora=rslora, target_modules=["q_proj", "v_proj", "up_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 2, "v_proj": 8}, alpha_pattern={".*proj": 3, "up_proj": 5, r"model\.layers\.0.*": 9},
    )  # fmt: skip
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    theirs = {
        n.removeprefix("base_model.model."): m.scaling["default"] for n, m in adapted.named_modules() if isinstance(m, LoraLayer)
    }
    ours = {p.name: p.scale for p in lora_pairs(load_adapter(tmp_path))}
    assert ours == pytest.approx(theirs, rel=1e-12) and len(set(ours.values())) > 2


def test_table_and_plot(adapter, tmp_path):
    for name, magic in (("plot.svg", b"<?xml"), ("plot.png", b"\x89PNG")):
        ended = call(adapter, "--plot", tmp_path / name)
        assert ended.exit_code == 0 and (tmp_path / name).read_bytes().startswith(magic)
    assert "mean of 2 layers" in ended.stdout and "layers.1.self_attn.q_proj" in ended.stdout


def test_bad_input_is_one_line(adapter, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments in ((tmp_path / "empty",), (adapter, "--plot", tmp_path / "plot.gif")):
        ended = call(*arguments)
        assert isinstance(ended.exception, UserError) and "\n" not in str(ended.exception)
    assert not (tmp_path / "plot.gif").exists()


class Tiny(torch.nn.Module):
    """Something for PEFT to adapt."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(7, 6)
        self.q_proj, self.head = torch.nn.Linear(6, 8), torch.nn.Linear(8, 7)

    def forward(self, ids):
        return self.head(self.q_proj(self.embed(ids)))


def saved(folder, **options):
    """A PEFT adapter of that configuration whose every trained tensor has moved; its folder."""
    torch.manual_seed(0)
    model = get_peft_model(Tiny(), LoraConfig(r=4, target_modules=options.pop("target_modules", ["q_proj"]), **options))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "options, why",
    [
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa"}, "took B A out of the base"),
        ({"init_lora_weights": "olora"}, "took B A out of the base"),
        ({"kasa_config": KasaConfig()}, "KaSA"),
    ],
    ids=["dora", "pissa", "olora", "kasa"],
)
def test_an_update_that_is_not_BA_is_refused(options, why, tmp_path):
    ended = call(saved(tmp_path, **options))
    assert isinstance(ended.exception, UserError) and why in str(ended.exception) and "\n" not in str(ended.exception)


def test_dora_is_refused_by_its_tensors_alone(tmp_path):
    saved(tmp_path, use_dora=True)
    (tmp_path / "adapter_config.json").unlink()
    assert "DoRA" in str(call(tmp_path).exception)


@pytest.mark.parametrize(
    "options, kind, module",
    [
        ({"target_modules": ["q_proj", "embed"]}, "embeddings", "embed"),
        ({"modules_to_save": ["head"]}, "whole modules", "head"),
        ({"trainable_token_indices": {"embed": [1, 2]}}, "trained tokens", "embed"),
        ({"bias": "all"}, "biases", "q_proj"),
        ({"lora_bias": True}, "biases", "q_proj"),
    ],
    ids=["embeddings", "modules_to_save", "tokens", "bias", "lora_bias"],
)
def test_what_is_no_BA_is_named(options, kind, module, tmp_path):
    ended = call(saved(tmp_path, **options), "--json")
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert module in " ".join(found["left_out"][kind]) and found["summary"]["layers"] == 1
    assert f"not measured, for they are no B A: {kind}" in " ".join(call(tmp_path).stdout.split())


def test_a_plain_adapter_leaves_nothing_out(tmp_path):
    assert json.loads(call(saved(tmp_path), "--json").stdout)["left_out"] == {}
