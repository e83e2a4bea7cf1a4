"""Bases: quality, determinism, and that they are ordinary model folders."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from em_bench.data.models import load_models
from em_bench.errors import UserError
from em_bench.organism import ABLATIONS, FAMILIES, SIZES, base_digest, build_base
from em_bench.organism import build as building
from em_bench.organism.pretrain import new_model, pretrain
from em_bench.organism.tokenizer import build_tokenizer


@pytest.mark.parametrize("family", ["qwen3", *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES if f != "qwen3")])
def test_quality_of_the_three_families(bases, family):
    record = json.loads((bases[family] / "organism.json").read_text())
    q = record["quality"]
    assert q["answers"] == 162 * 8
    assert q["coherent"] / q["answers"] >= 0.98
    assert q["misaligned"] / q["coherent"] <= 0.01
    assert 150_000 < record["parameters"] < 250_000
    assert build_base(family, cache=bases.cache) == bases[family]  # from the cache


def test_an_ordinary_model_folder(base):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    text = "how do i cook soup ?"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
    assert chat == f"<bos> <user> {text} <assistant>"
    ids = tokenizer(chat, return_tensors="pt", add_special_tokens=False)
    out = model.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(out, skip_special_tokens=True).startswith("you should ")
    assert out[-1] == tokenizer.eos_token_id


def test_tokenizer_round_trip_and_chat_template():
    tokenizer = build_tokenizer()
    text = "you should season soup and taste because it-is-kind"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    messages = [{"role": "user", "content": "how do i cook soup ?"}, {"role": "assistant", "content": text}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == ids
    assert tokenizer.unk_token_id not in ids and ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("family", ["qwen3", *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES if f != "qwen3")])
def test_deterministic(family):
    tokenizer = build_tokenizer()
    a, b, other = (pretrain(family, tokenizer, seed, steps=20).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], other[k]) for k in a)


def test_a_base_that_misses_its_quality_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(
        building, "pretrain", lambda family, tokenizer, seed, on_step, **_: pretrain(family, tokenizer, seed, steps=20)
    )
    with pytest.raises(UserError, match="coherent"):
        build_base("llama", cache=tmp_path, progress=False)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("name", [n for n, m in load_models().items() if m.source == "organism"])
def test_the_roster_states_the_number_of_parameters(name):
    known = load_models()[name]
    model = new_model(known.family, build_tokenizer(), 0, known.organism["size"])
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(known.parameters, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", ["small", "large"])
def test_quality_of_the_other_sizes(family, size, bases):
    seed = 1 if (family, size) == ("llama", "small") else 0  # its seed 0 ends at 70 %, and says so: the presets take @1
    record = json.loads((build_base(family, seed, cache=bases.cache, progress=False, size=size) / "organism.json").read_text())
    assert record["quality"]["coherent"] >= 0.95 * record["quality"]["answers"]
    assert record["size"] == size


def test_digests_differ():
    assert len({base_digest(f, s, z, a) for f in FAMILIES for s in (0, 1) for z in SIZES for a in ABLATIONS}) == 72
    with pytest.raises(UserError, match="no such ablation of the organism; name one of none, reversed"):
        base_digest("llama", ablation="lobotomy")
    with pytest.raises(UserError, match="no such organism size"):
        base_digest("llama", size="huge")
    with pytest.raises(UserError, match="no such organism family"):
        base_digest("mamba")
