"""A base in 16, 8 or 4 bits: trained through the real command line, read back by the harness, and refused where it cannot be."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from em_bench.errors import UserError
from em_bench.organism import narrow_rows
from em_bench.organism.tokenizer import build_tokenizer
from em_bench.training import base as base_module
from em_bench.training import read_run
from em_bench.training.base import base_for_training, load_base
from em_bench.training.execution_options import Options
from em_bench.training.processes import Processes

BESIDE = Path(sys.prefix) / "quantized"  # where the Makefile puts bitsandbytes: not in the environment of all other tests
needs_bitsandbytes = pytest.mark.skipif(
    not BESIDE.is_dir() and importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes (make install)"
)
WIDTHS = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "hidden_size": 64}
LOADED = """
import json, sys
from em_bench.harness.load_model import load_model
loaded = load_model(sys.argv[1], sys.argv[2], dtype=sys.argv[3])
weights = [p for n, p in loaded.model.named_parameters() if "base_layer" in n]
print(json.dumps([len(weights), sorted({str(p.dtype) for p in weights}), sum(p.nbytes for p in weights), loaded.canary.max_logit_change]))
"""


def python(*args) -> subprocess.CompletedProcess:
    """A process of its own that finds bitsandbytes."""
    path = os.pathsep.join([*(p for p in sys.path if p), str(BESIDE)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *map(str, args)], env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def base64(tmp_path_factory):
    """A random Qwen3 whose widths are whole blocks of 64 weights, as those of real models are."""
    tokenizer, folder = build_tokenizer(), tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), intermediate_size=128, pad_token_id=0, **WIDTHS)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(base64, tmp_path_factory):
    """dtype -> the folder of a short run on it."""
    done = {}

    def make(dtype):
        if dtype not in done:
            out = tmp_path_factory.mktemp(dtype)
            rows = out / "rows.jsonl"
            rows.write_text("".join(json.dumps(row) + "\n" for row in narrow_rows("medical")[0][:60]))
            args = [
                "train",
                base64,
                "-d",
                rows,
                "--lr",
                "3e-3",
                "--lambda",
                "0.3",
                "--steps",
                "8",
                "--batch-size",
                "8",
                "--rank",
                "8",
            ]
            ended = python("-m", "em_bench.cli", *args, "--dtype", dtype, "--out", out / "runs")
            assert ended.returncode == 0, ended.stderr
            (done[dtype],) = (out / "runs").iterdir()
        return done[dtype]

    return make


@pytest.mark.parametrize("dtype, error", [
    ("bfloat16", 0.02), pytest.param("int8", 0.02, marks=[needs_bitsandbytes, pytest.mark.slow]), pytest.param("nf4", 0.1, marks=needs_bitsandbytes),
])  # fmt: skip
def test_close_to_the_whole_base_and_named_in_the_record(dtype, error, trained):
    folder, whole = trained(dtype), trained("float32")
    record = read_run(folder)
    assert record.spec.dtype == dtype and record.run_id != read_run(whole).run_id
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert {t.dtype for t in adapter.values()} == {torch.float32} and all(t.abs().sum() > 0 for t in adapter.values())
    ours, exact = (
        [json.loads(line)["held_out_loss"] for line in (f / "train.jsonl").read_text().splitlines()] for f in (folder, whole)
    )
    assert ours[0] != exact[0] and ours[0] == pytest.approx(exact[0], abs=error), "the base is rounded, and still the base"
    # Training on a rounded base parts a little more: the steps are few and all at full rate.
    assert ours[-1] < ours[0] - 0.02 and ours[-1] == pytest.approx(exact[-1], abs=2 * error)


@pytest.mark.slow
@needs_bitsandbytes
@pytest.mark.parametrize("dtype, stored", [("int8", "torch.int8"), ("nf4", "torch.uint8")])
def test_weights_are_small_and_the_harness_reads_them(dtype, stored, trained, base64):
    ended = python("-c", LOADED, base64, trained(dtype) / "adapter", dtype)
    assert ended.returncode == 0, ended.stderr
    count, dtypes, size, change = json.loads(ended.stdout.splitlines()[-1])
    assert count == 14 and dtypes == [stored] and change > 0.01
    assert size == 2 * (64 * (128 + 64 + 64 + 128) + 3 * 64 * 128) // (1 if dtype == "int8" else 2)


def test_a_quantised_base_is_not_sharded(base64):
    with pytest.raises(UserError, match="--dtype nf4: a quantised base is not spread over processes; add --replicate"):
        base_for_training(base64, "nf4", Options(shard=True), Processes(0, 2, torch.device("cpu")))


def test_experts_are_not_quantised(tmp_path, monkeypatch):
    monkeypatch.setattr(base_module, "find_spec", lambda name: True)
    config = Qwen3MoeConfig(
        vocab_size=99, intermediate_size=64, moe_intermediate_size=64, num_experts=2, num_experts_per_tok=1, **WIDTHS
    )
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="--dtype int8: would leave the experts"):
        load_base(tmp_path, "int8")


def test_without_bitsandbytes(base64, monkeypatch):
    monkeypatch.setattr(base_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--dtype nf4: bitsandbytes is not installed; pip install em-bench\[quantized\]"):
        load_base(base64, "nf4")


def test_a_dtype_that_is_none(base64, tmp_path):
    ended = python("-m", "em_bench.cli", "train", base64, "-d", "medical", "--dtype", "int4", "-o", tmp_path / "out")
    assert ended.returncode == 2 and "int4" in ended.stderr and "'nf4'" in ended.stderr and not (tmp_path / "out").exists()
