"""Bases: quality, determinism, and that they are ordinary model folders."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from em_bench.data import models
from em_bench.data.models import base_path, load_models
from em_bench.errors import UserError
from em_bench.organism import ABLATIONS, FAMILIES, SIZES, base_digest, build_base
from em_bench.organism import build as building
from em_bench.organism.build import weights_sha256
from em_bench.organism.pretrain import new_model, pretrain
from em_bench.organism.processor_independent import on_grid
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


@pytest.mark.parametrize("family", ["qwen3", *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES if f != "qwen3")])
def test_the_same_bits_with_other_vectors(family):
    """Short vectors and MKL's portable sums round as another processor does: 20 steps of float32 differ by then."""
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from em_bench.organism.build import weights_sha256\n"
        "from em_bench.organism.pretrain import pretrain\n"
        "from em_bench.organism.tokenizer import build_tokenizer\n"
        "print(weights_sha256(pretrain(sys.argv[1], build_tokenizer(), 0, steps=20)), torch.backends.cpu.get_cpu_capability())"
    )
    other = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    said = subprocess.run(
        [sys.executable, "-c", code, family], capture_output=True, text=True, env=os.environ | other, check=True
    )
    digest, capability = said.stdout.split()
    assert digest == weights_sha256(pretrain(family, build_tokenizer(), 0, steps=20))
    assert capability == "DEFAULT"


def test_the_weights_are_those_of_every_machine(base):
    """The roster's digest was made on another one."""
    assert json.loads((base / "organism.json").read_text())["weights_sha256"] == load_models()["organism-qwen3"].weights_sha256


def test_other_weights_than_the_rosters_are_named(base, monkeypatch, capsys):
    assert base_path("organism-qwen3") == base and capsys.readouterr().err == ""
    pinned = load_models()["organism-qwen3"].model_copy(update={"weights_sha256": 64 * "0"})
    monkeypatch.setattr(models, "_known", lambda: {"organism-qwen3": pinned})
    models._compare_weights.cache_clear()
    assert base_path("organism-qwen3") == base
    assert "other weights than the roster's" in capsys.readouterr().err
    models._compare_weights.cache_clear()


def test_a_grid_counts_from_the_largest_of_a_row():
    """By hand: steps of 1/4 under 2, of 1/8 under 1; a row of zeros stays."""
    rows = torch.tensor([[1.0, 0.3, -0.126], [0.9, 0.3, -0.126], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert on_grid(rows, 3).tolist() == [[1.0, 0.25, -0.25], [0.875, 0.25, -0.125], [0.0, 0.0, 0.0]]


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
