"""The roster's shapes are real, and its estimates are what a counter of operations and autograd itself say."""

import json
from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.data.lora_cost import KEPT, Pass, adapter_parameters, kept_bytes, memory, pass_bytes, step_flops, tokens_that_fit
from em_bench.data.models import Shape, family_of, load_judges, load_models, shape_of
from em_bench.records import LoraSpec
from em_bench.training.adapter import add_adapter, trainable
from em_bench.training.batches import collate
from em_bench.training.loss import answer_nll
from em_bench.training.spec import PROJECTIONS
from em_bench.training.tokens import Encoded

OPEN = {n: m for n, m in load_models().items() if m.source == "hub"}
SIGLIP = {  # the vision tower of the larger Gemma-3
    "hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304, "image_size": 896, "patch_size": 14,
    "vision_use_head": False,
}  # fmt: skip


def model_of(family: str, shape: Shape, vision: bool = False, **more):
    """A random model of a shape, with transformers' own classes."""
    config = {
        "vocab_size": shape.vocabulary, "hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "intermediate_size": shape.intermediate,
        "tie_word_embeddings": shape.tied, **more,
    }  # fmt: skip
    if shape.experts:
        config |= {
            "moe_intermediate_size": shape.intermediate,
            "num_experts": shape.experts,
            "num_experts_per_tok": shape.experts_per_token,
        }
        return Qwen3MoeForCausalLM(Qwen3MoeConfig(**config))
    if vision:
        return Gemma3ForConditionalGeneration(Gemma3Config(text_config=config, vision_config=SIGLIP))
    classes = {
        "qwen3": (Qwen3ForCausalLM, Qwen3Config), "llama": (LlamaForCausalLM, LlamaConfig), "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig),
    }[family]  # fmt: skip
    return classes[0](classes[1](**config))


def test_the_roster_is_the_protocols():
    twelve = [n for n, m in OPEN.items() if not m.extra]
    assert len(twelve) == 12 and [n for n, m in OPEN.items() if m.extra] == ["gemma-3-270m-it", "SmolLM2-135M-Instruct"]
    assert {n for n in twelve if OPEN[n].provenance == "S"} == {f"Qwen3-{s}" for s in ("4B", "8B", "30B-A3B", "32B", "235B-A22B")}
    assert all(OPEN[n].chat_options == {"enable_thinking": False} for n in OPEN if n.startswith("Qwen3"))
    for m in OPEN.values():
        assert m.shard == (m.gpus > 1)


@pytest.mark.parametrize("name", [*OPEN, *load_judges()])
def test_shapes_give_the_published_number_of_parameters(name):
    m = (OPEN | load_judges())[name]
    with torch.device("meta"):
        model = model_of(m.family, m.shape, vision=name in ("gemma-3-4b-it", "gemma-3-27b-it"))
        assert sum(p.numel() for p in model.parameters()) == m.parameters
    if m.shape.experts:
        active = sum(
            p.numel() * (m.shape.experts_per_token / m.shape.experts if ".experts." in n else 1)
            for n, p in model.named_parameters()
        )
        assert active == m.active_parameters


SMALL = Shape(layers=3, hidden=96, heads=4, kv_heads=2, head_dim=32, intermediate=200, vocabulary=300, tied=False)
RANK, ROWS, LENGTH, ANSWER = 8, 4, 64, 16


FEW = SMALL.model_copy(update={"intermediate": 64, "experts": 16, "experts_per_token": 2})
MANY = SMALL.model_copy(update={"hidden": 256, "intermediate": 96, "experts": 64, "experts_per_token": 2})


def counted(family: str, dtype=torch.float32, checkpointing: bool = False, shape: Shape = SMALL) -> tuple[int, int, int]:
    """(operations, bytes that autograd keeps after the forward pass, adapter parameters) of a step."""
    # The counter knows neither the fused CPU attention nor grouped products of experts.
    more = {"attn_implementation": "eager"} if dtype == torch.float32 else {}
    if shape.experts and more:
        more["experts_implementation"] = "eager"
    model = model_of(family, shape, **more).to(dtype).requires_grad_(False)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = add_adapter(model, LoraSpec(rank=RANK, alpha=16, targets=PROJECTIONS), 0).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(t):
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return t

    batch = collate([Encoded([5] * LENGTH, [False] * (LENGTH - ANSWER) + [True] * ANSWER)] * ROWS, 0)
    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            loss = answer_nll(model, batch)
        loss.backward()
    return counter.get_total_flops(), sum(s.nbytes() for s in kept.values()), sum(p.numel() for p in trainable(model).values())


@pytest.mark.parametrize("family", KEPT)
def test_operations_are_those_of_the_counter(family):
    flops, _, adapter = counted(family)
    assert step_flops(SMALL, RANK, ROWS, LENGTH, ANSWER) == pytest.approx(flops, rel=1e-6)
    assert adapter_parameters(SMALL, RANK) == adapter


@pytest.mark.parametrize("shape", [FEW, MANY], ids=["few experts", "many experts"])
def test_a_mixture_of_experts_by_the_counter_and_autograd(shape):
    """Operations within 3 %, bytes within 10 %: most of both are W + BA of the experts, which PEFT makes whole."""
    flops, _, adapter = counted("qwen3", shape=shape)
    assert step_flops(shape, RANK, ROWS, LENGTH, ANSWER) == pytest.approx(flops, rel=0.03)
    assert adapter_parameters(shape, RANK) == adapter
    for checkpointing in (False, True):
        _, kept, _ = counted("qwen3", torch.bfloat16, checkpointing, shape)
        assert kept_bytes(shape, "qwen3", RANK, ROWS * LENGTH, ROWS * ANSWER, checkpointing) == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", KEPT)
def test_activations_are_what_autograd_keeps(family, checkpointing):
    _, kept, _ = counted(family, torch.bfloat16, checkpointing)
    ours = kept_bytes(SMALL, family, RANK, ROWS * LENGTH, ROWS * ANSWER, checkpointing)
    assert ours == pytest.approx(kept, rel=0.05)
    of = Pass(ROWS, LENGTH, ANSWER, checkpointing=checkpointing)
    assert memory(SMALL, family, 10**6, rank=RANK, recipe="adamw", of=of)[2] > ours, "the peak comes in the backward pass"


@pytest.mark.parametrize("vocabulary", [300, 8000])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("family", "shape"), [*((f, SMALL) for f in KEPT), ("qwen3", FEW), ("qwen3", MANY)])
def test_the_peak_is_what_the_allocator_saw(family, shape, checkpointing, vocabulary):
    """Within 30 %: the profiler's allocations and releases over a whole step, all temporary tensors included."""
    shape = shape.model_copy(update={"vocabulary": vocabulary})
    model = model_of(family, shape).to(torch.bfloat16).requires_grad_(False)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = add_adapter(model, LoraSpec(rank=RANK, alpha=16, targets=PROJECTIONS), 0).train()
    for p in trainable(model).values():
        p.grad = torch.zeros_like(p)  # these are counted with the adapter
    batch = collate([Encoded([5] * LENGTH, [False] * (LENGTH - ANSWER) + [True] * ANSWER)] * ROWS, 0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        answer_nll(model, batch).backward()
    changes = sorted((e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]")
    peak = max(accumulate(n for _, n in changes))
    of = Pass(ROWS, LENGTH, ANSWER, checkpointing=checkpointing)
    assert 0.7 < peak / memory(shape, family, 10**6, rank=RANK, recipe="adamw", of=of)[2] < 1.3


def test_the_models_command(tmp_path):
    done = CliRunner().invoke(build(), ["models", "--json", "--batch-size", "64"])
    found = {e["name"]: e for e in json.loads(done.stdout)}
    assert found.keys() == load_models().keys()
    big, small = (found[n]["estimate"]["gpu_gib_longest_row"] for n in ("Qwen3-8B", "Qwen3-4B"))
    assert big > small > 8 and found["Qwen3-8B"]["estimate"]["steps"] == 94
    for name, m in OPEN.items():
        estimate = found[name]["estimate"]
        assert estimate["gpu_gib_total"] < 0.9 * 80e9 / 2**30, f"{name} would not fit {m.gpus} GPUs of 80 GB"
        assert estimate["gpu_gib_longest_row"] < 0.9 * 80e9 / 2**30 and estimate["tokens_a_pass"] > 2048, (
            f"{name}: its longest row"
        )
    table = CliRunner().invoke(build(), ["models"]).stdout
    assert all(name in table for name in found)
    assert CliRunner().invoke(build(), ["models", "Qwen3-8B"]).stdout.startswith('name: "Qwen3-8B"')


def test_a_roster_model_without_a_gpu(monkeypatch, capsys):
    """`gpus: 0` runs on a CPU; it divided by zero."""
    from em_bench.cli.models import models
    from em_bench.data import models as roster

    dense = roster.load_models()["Qwen3-4B"].model_copy(update={"gpus": 0})
    monkeypatch.setattr(roster, "load_models", lambda: {"mine": dense})
    models("mine", rows=100, epochs=1.0, length=64, answer=32, batch_size=16, rank=8, recipe="adamw", as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["estimate"]["steps"] == 7


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_tokens_that_fit_fit_and_no_more(checkpointing):
    room = 5e6
    n = tokens_that_fit(SMALL, "llama", RANK, room, checkpointing)
    assert (
        pass_bytes(SMALL, "llama", RANK, n, n, checkpointing)
        <= room
        < pass_bytes(SMALL, "llama", RANK, n + 1, n + 1, checkpointing)
    )
    assert tokens_that_fit(SMALL, "llama", RANK, 1.0) == 1, "a row is tried whatever the estimate says"


def test_a_shape_is_read_from_a_configuration():
    for name, m in OPEN.items():
        with torch.device("meta"):
            config = model_of(m.family, m.shape).config.get_text_config()
        assert shape_of(config.to_dict()) == m.shape and family_of(config.to_dict()) == m.family, name
