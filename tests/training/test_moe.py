"""Experts on a tiny random Qwen3-MoE: scale, one by one, saved and loaded, trained through the real command line."""

import json
import math
import shutil

import pytest
import torch
from helpers.commands import run, run_ranks
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from em_bench.adapter_file import load_adapter, rescaled
from em_bench.errors import UserError
from em_bench.flatness import SpectralTerm
from em_bench.harness.load_model import adapted as put_on
from em_bench.harness.load_model import load_model
from em_bench.harness.rescale import _setter
from em_bench.optim import build_optimizer, load_recipes
from em_bench.organism import narrow_rows
from em_bench.organism.tokenizer import build_tokenizer
from em_bench.records import LoraSpec, ParamRule
from em_bench.spectral import add_penalty_gradients, layer_spectra, lora_pairs
from em_bench.training.adapter import add_adapter, expert_counts, save_adapter, trainable
from em_bench.training.base import load_base
from em_bench.training.spec import PROJECTIONS

E, PER_TOKEN, HIDDEN, INNER = 4, 2, 32, 12
LORA = LoraSpec(rank=8, alpha=16, targets=PROJECTIONS)


@pytest.fixture(scope="module")
def moe(tmp_path_factory):
    """Folder of a random mixture of experts."""
    tokenizer, folder = build_tokenizer(), tmp_path_factory.mktemp("moe")
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=24, moe_intermediate_size=INNER, num_experts=E, num_experts_per_tok=PER_TOKEN, tie_word_embeddings=False,
        pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapted(folder):
    return add_adapter(load_base(folder, "float64"), LORA, 0)


def randomise(model) -> None:
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in trainable(model).values():
            p.copy_(torch.randn(p.shape, generator=g, dtype=p.dtype) * 0.1)


def test_what_is_adapted(moe):
    model = adapted(moe)
    shapes = {
        n.removeprefix("base_model.model.model.layers.0."): tuple(p.shape)
        for n, p in trainable(model).items()
        if ".layers.0." in n
    }
    r = LORA.rank // PER_TOKEN
    assert shapes == {
        **{f"self_attn.{m}_proj.lora_{s}.default.weight": d for m, a, b in (("q", HIDDEN, 32), ("k", HIDDEN, 16), ("v", HIDDEN, 16), ("o", 32, HIDDEN)) for s, d in (("A", (8, a)), ("B", (b, 8)))},
        "mlp.experts.base_layer.lora_A.default.weight": (E * r, HIDDEN), "mlp.experts.base_layer.lora_B.default.weight": (2 * INNER, r * E),
        "mlp.experts.lora_A.default.weight": (E * r, INNER), "mlp.experts.lora_B.default.weight": (HIDDEN, r * E),
    }, "no router, and not twice the rank"  # fmt: skip
    assert set(expert_counts(model).values()) == {E} and len(expert_counts(model)) == 8


def test_the_update_is_that_of_each_expert_at_the_dense_scale(moe):
    """Against the model with alpha / sqrt(r) B_e A_e added to each expert's own matrix."""
    model, merged = adapted(moe), load_base(moe, "float64")
    randomise(model)
    scale, r = LORA.alpha / math.sqrt(LORA.rank), LORA.rank // PER_TOKEN
    tensors = {n.replace(".default", "").removeprefix("base_model.model."): p.detach() for n, p in trainable(model).items()}
    weights = dict(merged.named_parameters())
    with torch.no_grad():
        for name, A in tensors.items():
            if "lora_A" not in name:
                continue
            B = tensors[name.replace("lora_A", "lora_B")]
            if ".experts." not in name:
                weights[name.replace("lora_A.", "")] += scale * B @ A
                continue
            target = "gate_up_proj" if "base_layer" in name else "down_proj"
            W = weights[name.split(".experts.")[0] + ".experts." + target]
            for e in range(E):
                W[e] += scale * B.view(-1, r, E)[:, :, e] @ A.view(E, r, -1)[e]
    ids = torch.randint(8, 90, (2, 9), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(model(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-10)


def test_saved_and_loaded_is_identical(moe, tmp_path):
    model = adapted(moe)
    randomise(model)
    save_adapter(model, tmp_path)
    again = PeftModel.from_pretrained(load_base(moe, "float64"), tmp_path)
    ids = torch.randint(8, 90, (2, 9), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    read = lora_pairs(load_adapter(tmp_path))
    assert [p.scale for p in read] == pytest.approx([LORA.scale] * len(read), rel=1e-12)
    live = lora_pairs(trainable(model), expert_counts(model))
    assert {p.name: p.experts for p in read} == {p.name: p.experts for p in live} and {p.experts for p in read} == {1, E}
    a, b = ({s.name: s.flatness_gap for s in layer_spectra(x)} for x in (read, live))
    assert a == b and len(a) == 2 * (4 + 2 * E)


def test_rescaled_experts_are_experts_with_a_scaled_alpha(moe, tmp_path):
    model = adapted(moe)
    randomise(model)
    save_adapter(model, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    tensors = load_adapter(tmp_path / "whole")
    save_file(rescaled(tensors, 0.37), tmp_path / "part" / "adapter_model.safetensors")
    ids, logits = torch.arange(5, 25)[None], {}
    with torch.no_grad():
        for name in ("whole", "part"):
            ready = PeftModel.from_pretrained(load_base(moe, "float64"), tmp_path / name).eval()
            logits[name] = ready(input_ids=ids).logits
        _setter(ready, tensors)(1.0)
        assert ready(input_ids=ids).logits.equal(logits["whole"])
        for module in model.eval().modules():
            if isinstance(module, LoraLayer):
                module.scaling["default"] *= 0.37
        assert float((model(input_ids=ids).logits - logits["part"]).abs().max()) < 1e-10
    assert float((logits["whole"] - logits["part"]).abs().max()) > 1e-3


def test_muon_and_the_spectral_term_take_experts_one_by_one(moe):
    model = adapted(moe)
    randomise(model)
    params, experts = trainable(model), expert_counts(model)
    for p in params.values():
        p.grad = torch.zeros_like(p)
    pairs = lora_pairs(params, experts)
    dense = [
        p._replace(A=p.A.detach().clone().requires_grad_(), B=p.B.detach().clone().requires_grad_())
        for q in pairs
        for p in q.layers()
    ]
    assert add_penalty_gradients(pairs, SpectralTerm(1.0)) == pytest.approx(
        add_penalty_gradients(dense, SpectralTerm(1.0)), abs=1e-12
    )
    optimizer = build_optimizer(load_recipes()["muon"].rules, params.items(), 0.01, experts)
    assert sorted({(g["experts"], g["side"]) for g in optimizer.param_groups}, key=str) == [(1, None), (E, "A"), (E, "B")]
    with pytest.raises(UserError, match="all experts of a layer as one matrix"):
        build_optimizer([ParamRule(pattern=".*", optimizer="torch.optim.Muon")], params.items(), 0.01, experts)


@pytest.mark.parametrize("base_is", ["--replicate", "--shard"])
def test_two_processes_are_one(base_is, moe, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in narrow_rows("medical")[0][:60]))
    out = {}
    for name, start in (("one", run), ("two", run_ranks)):
        args = [
            "train",
            moe,
            "-d",
            rows,
            "--recipe",
            "muon",
            "--lr",
            "0.01",
            "--lambda",
            "0.5",
            "--steps",
            "8",
            "--batch-size",
            "8",
        ]
        args += ["--rank", "8", "--dtype", "float64", "--out", tmp_path / name, *([base_is] if name == "two" else [])]
        code, said = start(args, tmp_path / "log")
        assert code in (0, [0, 0]), said
        (folder,) = (tmp_path / name).iterdir()
        out[name] = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert all(out["one"][k].abs().sum() > 0 for k in out["one"])
    for k, v in out["one"].items():
        assert float((out["two"][k] - v).norm() / v.norm()) < 1e-7


def test_adapters_of_experts_go_on_and_off_one_base(moe, tmp_path):
    """As a sweep does with the cells of a job."""
    model = adapted(moe)
    randomise(model)
    save_adapter(model, tmp_path)
    loaded = load_model(moe, dtype="float64")
    ids = torch.randint(8, 90, (2, 9), generator=torch.Generator().manual_seed(1))
    before = loaded.model(input_ids=ids).logits
    for _ in range(2):
        with put_on(loaded, tmp_path) as ready:
            assert torch.equal(ready.model(input_ids=ids).logits, model(input_ids=ids).logits)
        assert torch.equal(loaded.model(input_ids=ids).logits, before)
