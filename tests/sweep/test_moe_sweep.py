"""A tiny mixture of experts from the hub's cache through the real commands: train, evaluate, report, and the board's checks."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from helpers import synthetic_entries as synthetic
from helpers.loopback import KEY, Loopback
from safetensors.torch import load_file, save_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from em_bench import assets
from em_bench.board.benchmark import Benchmark, JudgeRule, TierModel
from em_bench.data import rows
from em_bench.files import cache_dir, digest, read_jsonl, read_record
from em_bench.harness.load_model import load_model
from em_bench.judging.prompts import load_prompts
from em_bench.organism.tokenizer import build_tokenizer
from em_bench.records import CellResult, Generation, LoraSpec, Response, ResponsesHeader, Results, RunRecord
from em_bench.run_folder import RunFolder
from em_bench.sweep.preset import RateRule
from em_bench.training import encode_rows
from em_bench.training.loss import narrow_loss
from em_bench.training.spec import PROJECTIONS
from em_bench.verify import checks
from em_bench.verify.chain import verify

pytestmark = pytest.mark.slow  # a minute and a half: a whole entry

COMMIT, EXPERTS, RANK, PER_TOKEN = "c" * 40, 4, 8, 2
SHAPE = {
    "layers": 2, "hidden": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate": 16, "tied": False,
    "experts": EXPERTS, "experts_per_token": PER_TOKEN,
}  # fmt: skip
ENTRY = {
    "authors": ["A. Author"], "description": "Made by a test.", "optimizer": {"library": "torch.optim.NAdam"},
    "learning_rate": 0.01,
}  # fmt: skip


def em_bench(home: tuple[Path, str], *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    """A command in the folder `home`, whose roster and hub's cache all processes that it starts find, and its judge."""
    home, url = home
    where = {
        "PYTHONPATH": os.pathsep.join((str(home), *(p for p in sys.path if p))), "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(home / "hub"), "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url,
        "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    main = "from em_bench.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", main, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | where,
        cwd=home,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


@pytest.fixture(scope="module")
def home(tmp_path_factory, organism_cache) -> Iterator[tuple[Path, str]]:
    """A folder of assets whose roster also names a random mixture of experts, which lies in its cache of the hub; and a judge."""
    home = tmp_path_factory.mktemp("moe")
    (home / "assets").mkdir()
    for name in ("tasks", "leaderboard"):
        (home / "assets" / name).symlink_to(assets.path(name))
    shutil.copytree(assets.path("baselines"), home / "assets" / "baselines", ignore=shutil.ignore_patterns("results"))
    tokenizer, folder = build_tokenizer(), home / "hub" / "models--tiny--moe" / "snapshots" / COMMIT
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=24, moe_intermediate_size=16, num_experts=EXPERTS, num_experts_per_tok=PER_TOKEN,
        tie_word_embeddings=False, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text(COMMIT)
    model = {
        "source": "hub", "family": "qwen3", "parameters": 3e4, "provenance": "C", "hub_id": "tiny/moe",
        "shape": SHAPE | {"vocabulary": len(tokenizer)}, "extra": True,
    }  # fmt: skip
    with open(home / "assets" / "baselines" / "models.yaml", "a") as f:
        f.write("\n" + yaml.safe_dump({"tiny-moe": model}))
    (home / "sitecustomize.py").write_text(
        f"import pathlib\nfrom em_bench import assets\nassets.root = lambda: pathlib.Path({str(home / 'assets')!r})\n"
    )
    loaded, (_, held_out) = load_model(folder, dtype="bfloat16"), rows("medical")
    untrained = narrow_loss(loaded.model, encode_rows(loaded.tokenizer, held_out, 2048)[0], loaded.tokenizer.pad_token_id)
    synthetic.leaderboard(home / "leaderboard", rules(untrained))
    with Loopback() as judge:
        yield home, judge.url


def rules(untrained: float) -> Benchmark:
    """A tier of the mixture of experts alone, whose judge is a served one."""
    made = synthetic.benchmark()
    tier = made.tiers["organism"]
    target = tier.targets[0].model_copy(
        update={"model": "tiny-moe", "losses": (untrained - 5e-4, untrained - 1e-3), "untrained_loss": untrained}
    )
    judge = JudgeRule(kind="openai", model="judge", prompts="own", prompt_sha256=digest(load_prompts("own").texts))
    changes = {
        "models": (TierModel(name="tiny-moe", revision=COMMIT),), "targets": (target,), "judge": judge, "dtype": "bfloat16",
        "steps": 3, "warmup_steps": 0, "lora": LoraSpec(rank=RANK, alpha=16, targets=PROJECTIONS), "capability": (),
        "generation": Generation(samples=1, max_new_tokens=4, temperature=1.0, seed=0),
        "rates": RateRule(per_decade=10, tolerance=0, most=2), "witnesses": 1, "early_stop": 0.3,
        "gates": tier.gates.model_copy(update={"capability_drop": None}),
    }  # fmt: skip
    return made.model_copy(update={"tiers": {"organism": tier.model_copy(update=changes)}})


@pytest.fixture(scope="module")
def work(home) -> Path:
    """The work folder of an entry that was run as its author would."""
    where, _ = home
    em_bench(home, "submit", "init", "mine")
    file = where / "leaderboard" / "submissions" / "mine" / "submission.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | ENTRY))
    em_bench(home, "submit", "run", "mine", "--workdir", "work", "--cores", "2")
    return where / "work"


def test_a_mixture_of_experts_through_every_stage(home, work):
    results = read_record(work / "results.json", Results)
    assert not results.missing and len(results.cells) == 3
    for cell in results.cells:
        assert cell.spectral.layers == 2 * (4 + 2 * EXPERTS)  # layers x (attention + both matrices of each expert)
        assert len(cell.spectrum.mean) == RANK // PER_TOKEN
        groups = {name: g.layers for name, g in cell.spectral_groups.items()}
        assert groups["experts.gate_up_proj"] == groups["experts.down_proj"] == 2 * EXPERTS and groups["q_proj"] == 2
    for file in work.glob("evaluations/*/responses.jsonl"):
        header, _ = read_jsonl(file, ResponsesHeader, Response)
        assert header.dtype == "bfloat16" and header.base.revision == COMMIT, "as an open model is run by a sweep"
    em_bench(home, "report", work, "--out", "report")
    assert "tiny-moe" in (home[0] / "report" / "report.html").read_text()
    said = em_bench(home, "submit", "check", "mine").stdout.splitlines()
    assert "0 failed" in said[-1] and any(line.startswith("pass  run.adapter") for line in said)
    assert em_bench(home, "leaderboard", "build").stdout.strip().endswith("index.html")


def test_the_board_checks_its_adapter_without_adapter_config(work):
    """An entry holds the weights alone: what rank each expert has is in run.json."""
    assert [c for _, found in verify(work) for c in found if not c.passed] == []
    found = [read_record(p, CellResult) for p in work.glob("evaluations/*/cell.json")]
    cell = next(c for c in found if c.spectrum)  # not every run has one: a rate that was tried and not chosen is asked nothing
    folder = work / "runs" / cell.run_id
    run, weights = read_record(folder / "run.json", RunRecord), RunFolder(folder).weights()
    assert run.expert_rank == RANK // PER_TOKEN
    assert checks.curve(weights, cell.spectrum, run) is None and checks.spectrum(weights, run) is None
    scaled = {
        k: v * (1 + torch.arange(v.shape[1]) % EXPERTS) if "experts.lora_B" in k else v for k, v in load_file(weights).items()
    }
    save_file(scaled, folder / "same.safetensors")  # each expert of its own size: the same spectra, expert by expert
    shapes = run.model_copy(update={"spectral": run.spectral.model_copy(update={"norm": None})})  # the norm alone is another
    assert checks.spectrum(folder / "same.safetensors", shapes) is None
    assert "norm is" in checks.spectrum(folder / "same.safetensors", run)
    assert "layers is 16, the record says 24" in checks.spectrum(
        folder / "same.safetensors", run.model_copy(update={"expert_rank": RANK})
    )


def test_spectrum_has_a_row_an_expert(work):
    folder = min(work.glob("runs/*"))
    ended = subprocess.run(
        [sys.executable, "-c", "from em_bench.cli import main; main()", "spectrum", folder, "--json"],
        capture_output=True,
        text=True,
    )
    rows = json.loads(ended.stdout)["layers"]
    assert len(rows) == 2 * (4 + 2 * EXPERTS) and {len(r["sigma"]) for r in rows if ".experts." in r["name"]} == {
        RANK // PER_TOKEN
    }


def test_a_command_refuses_an_adapter_of_another_base_and_a_sweep_keeps_its_own(home, work):
    """The commit that the model stands for on this machine moves between training and evaluation: the same shapes, another model."""
    hub, other = home[0] / "hub" / "models--tiny--moe", "d" * 40
    shutil.copytree(hub / "snapshots" / COMMIT, hub / "snapshots" / other)
    (hub / "refs" / "main").write_text(other)
    (cache_dir() / "hub" / "tiny--moe" / "pin").write_text(other)  # somebody begins with an emptied cache
    folder = min(work.glob("runs/*"))
    ended = em_bench(home, "evaluate", "tiny-moe", "-a", folder / "adapter", "-q", "organism", code=2)
    assert f"was trained on tiny/moe ({COMMIT[:12]}), and this base is tiny-moe ({other[:12]})" in ended.stderr
    shutil.rmtree(work / "evaluations")
    for done in work.glob("jobs/evaluate-*/done-*.json"):
        done.unlink()
    em_bench(home, "submit", "run", "mine", "--workdir", "work", "--cores", "2")
    headers = [read_jsonl(p, ResponsesHeader, Response)[0] for p in work.glob("evaluations/*/responses.jsonl")]
    assert headers and {h.base.revision for h in headers} == {COMMIT}, "the commit that the sweep began with"
