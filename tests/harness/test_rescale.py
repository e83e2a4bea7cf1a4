"""`rescale` and its command on a real run: exact scaling, the target met again by `evaluate`, records, what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from em_bench.adapter_file import load_adapter, rescaled
from em_bench.cli import build
from em_bench.data.models import base_ref
from em_bench.errors import UserError
from em_bench.files import read_record
from em_bench.harness import rescale as module
from em_bench.harness.belonging import belonging
from em_bench.harness.load_model import load_model
from em_bench.harness.rescale import _setter, goal_of, rescale, source_of
from em_bench.records import RescaleRecord, ScoreRecord
from em_bench.training import read_run
from em_bench.training.base import load_base
from em_bench.verify.chain import unproven, verify

WEIGHTS = "adapter_model.safetensors"
IDS = torch.arange(5, 25)[None]
SMALL = ("--variants", "plain", "-n", "1", "--max-new-tokens", "24")


def call(*arguments, code: int = 0):
    ended = CliRunner().invoke(build(), list(map(str, arguments)))
    assert ended.exit_code == code and (ended.exception is None or code), ended.output
    return ended


def to_loss(run: Path, out: Path, target: float, **options):
    source = source_of(run)
    return rescale(source, out, goal_of(source, "loss", target, dtype="float32", **options))[0]


@pytest.fixture(scope="module")
def target(run) -> float:
    """A loss a little above the run's own."""
    return read_run(run).narrow_loss + 0.05


@pytest.fixture(scope="module")
def made(run, target, tmp_path_factory):
    """(folder, output) of the command."""
    out = tmp_path_factory.mktemp("rescaled") / "out"
    return out, call("rescale", run, "--to-loss", target, "--out", out, *SMALL)


@pytest.fixture(scope="module")
def foreign(base, tmp_path_factory) -> Path:
    """Someone's adapter in float64, with ranks and alphas of their own."""
    folder = tmp_path_factory.mktemp("foreign")
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], rank_pattern={"down_proj": 2}, alpha_pattern={"q_proj": 3}, init_lora_weights=False
    )  # fmt: skip
    torch.manual_seed(3)
    get_peft_model(load_base(base, "float64"), config).save_pretrained(folder, save_embedding_layers=False)
    return folder


def logits(base, adapter) -> torch.Tensor:
    model = PeftModel.from_pretrained(load_base(base, "float64"), str(adapter)).eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_scaled_matrices_are_a_scaled_alpha(base, foreign, tmp_path):
    tensors = load_adapter(foreign)
    assert next(iter(tensors.values())).dtype == torch.float64
    for name in ("by_b", "by_alpha"):
        shutil.copytree(foreign, tmp_path / name)
    save_file(rescaled(tensors, 0.37), tmp_path / "by_b" / WEIGHTS)
    config = json.loads((foreign / "adapter_config.json").read_text())
    config["lora_alpha"] *= 0.37
    config["alpha_pattern"] = {k: v * 0.37 for k, v in config["alpha_pattern"].items()}
    (tmp_path / "by_alpha" / "adapter_config.json").write_text(json.dumps(config))
    ours, theirs = logits(base, tmp_path / "by_b"), logits(base, tmp_path / "by_alpha")
    assert float((ours - theirs).abs().max()) < 1e-10 < 1e-3 < float((ours - logits(base, foreign)).abs().max())


def test_one_leaves_everything_and_nought_gives_the_base(base, adapter):
    tensors = load_adapter(adapter)
    assert all(t.equal(tensors[n]) and t.dtype == tensors[n].dtype for n, t in rescaled(tensors, 1.0).items())
    narrow = load_adapter(adapter)
    for name in narrow:
        narrow[name] = narrow[name].bfloat16()
    wide = rescaled(narrow, 0.3)
    assert {t.dtype for n, t in wide.items() if ".lora_B." in n} == {torch.float32}
    loaded = load_model(base, adapter)
    with torch.no_grad():
        before = loaded.model(input_ids=IDS).logits
        put = _setter(loaded.model, tensors)
        put(0.0)
        nought = loaded.model(input_ids=IDS).logits
        put(1.0)
        assert loaded.model(input_ids=IDS).logits.equal(before)
        with loaded.model.disable_adapter():
            assert loaded.model(input_ids=IDS).logits.equal(nought)


def test_the_loss_is_met_again_by_evaluate(made, target, tmp_path):
    out, _ = made
    record = read_record(out / "rescale.json", RescaleRecord)
    assert record.search.verdict == "reached" and 0 < record.scale < 1 and abs(record.narrow_loss - target) <= 1e-4
    call("evaluate", "organism-qwen3", "-a", out, "-q", "organism", *SMALL, "--narrow", "medical", "--out", tmp_path)
    assert read_record(tmp_path / "score.json", ScoreRecord).narrow_loss == pytest.approx(record.narrow_loss, abs=1e-6)


def test_the_norm_goes_with_the_scale(made, run):
    record = read_record(made[0] / "rescale.json", RescaleRecord)
    assert record.norm_before == pytest.approx(read_run(run).spectral.norm, rel=1e-6)
    assert record.norm_after == pytest.approx(record.scale * record.norm_before, rel=1e-6)


def test_what_is_printed(made, run, target):
    out, ended = made
    for text in ("scale", "narrow loss", "norm of the update", "misaligned / all asked", "misaligned / coherent", "coherent"):
        assert text in ended.stdout
    asked = next(line for line in ended.stdout.splitlines() if "all asked" in line)
    assert asked.endswith("of 162") and "[" in asked
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    again = json.loads(call("rescale", run, "--to-loss", target, "--out", out, *SMALL, "--json").stdout)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before and not out.with_name(".out.partial").exists()
    assert again["rescale"] == json.loads((out / "rescale.json").read_text())
    assert again["score"]["narrow_loss"] == again["rescale"]["narrow_loss"]


def test_verify_multiplies_again(made, run, tmp_path):
    shutil.copytree(made[0], tmp_path / "rescaled")
    assert len(list(unproven(tmp_path))) == 1  # the run is not there
    shutil.copytree(run, tmp_path / run.name)
    checks = {f.name: {c.id: c.passed for c in found} for f, found in verify(tmp_path)}
    assert checks["rescaled"] == {"rescale.adapter": True, "rescale.norm": True, "rescale.scale": True}
    assert checks["evaluation"]["responses.adapter"] and not list(unproven(tmp_path))
    file = tmp_path / "rescaled" / "rescale.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"scale": said["scale"] / 2}))
    failed = {c.id for _, found in verify(tmp_path) for c in found if not c.passed}
    assert failed == {"rescale.scale", "responses.adapter"}


def test_it_belongs_to_the_runs_base(made, run, base, tmp_path):
    own = belonging(made[0], "organism-qwen3", base)
    assert (own.run_id, own.step, own.base) == (run.name, None, base_ref("organism-qwen3", base)) and 0 < own.scale < 1
    shutil.copytree(base, tmp_path / "other")
    path = tmp_path / "other" / "model.safetensors"
    save_file({k: v + 0.01 for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="was trained on organism-qwen3"):
        belonging(made[0], str(tmp_path / "other"), tmp_path / "other")
    shutil.copytree(made[0], tmp_path / "changed")
    shutil.copy(run / "adapter" / WEIGHTS, tmp_path / "changed")
    with pytest.raises(UserError, match="is not the adapter that"):
        belonging(tmp_path / "changed", "organism-qwen3", base)


def test_coherence_is_looked_for_with_the_same_questions(run, tmp_path):
    """An update made larger breaks the model; the coherence at the scale is that of the evaluation that is left."""
    out = tmp_path / "out"
    base_only = call("rescale", run, "--to-coherence", 0.6, "--tolerance", 0.02, "--largest", 3, "--out", out, *SMALL).stdout
    record = read_record(out / "rescale.json", RescaleRecord)
    assert record.search.verdict == "reached" and record.scale > 1, base_only
    assert record.coherence.value == pytest.approx(0.6, abs=0.02) and record.coherence.low < record.coherence.value
    assert read_record(out / "evaluation" / "score.json", ScoreRecord).overall.coherent_rate == record.coherence
    assert record.narrow_loss != read_run(run).narrow_loss and len(record.search.tried) <= 16
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_loss_that_is_never_reached_is_an_answer(run, tmp_path):
    ended = call("rescale", run, "--to-loss", 0.1, "--out", tmp_path / "out")
    assert "never reaches 0.1 nats" in ended.stdout and "the lowest was" in ended.stdout
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["rescale.json"]
    assert "already" in to_loss(run, tmp_path / "high", 99.0).search.verdict
    assert call("rescale", run, "--to-loss", 0.1, "--out", tmp_path / "out").stdout == ended.stdout
    assert {c.id: c.passed for _, found in verify(tmp_path) for c in found} == {"rescale.adapter": True}


def test_a_killed_search_measures_nothing_twice(run, target, tmp_path, monkeypatch):
    measured = []

    def counted(ready, dataset, real=module.loss_on):
        measure = real(ready, dataset)
        return lambda: measured.append(0) or measure()

    def stop(tried):
        if len(measured) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "loss_on", counted)
    source = source_of(run)
    goal = goal_of(source, "loss", target, dtype="float32")
    with pytest.raises(KeyboardInterrupt):
        rescale(source, tmp_path / "out", goal, tell=stop)
    assert len(measured) == 4 and not (tmp_path / "out").exists()
    record, _ = rescale(source, tmp_path / "out", goal)
    assert len(measured) == len(record.search.tried)


def test_a_bare_adapter_names_its_dataset(adapter, made, target, tmp_path):
    bare = shutil.copytree(adapter, tmp_path / "lora")
    with pytest.raises(UserError, match="name it with --dataset"):
        to_loss(bare, tmp_path / "out", target)
    record = to_loss(bare, tmp_path / "out", target, dataset="medical")
    assert record.run_id is None and record.scale == read_record(made[0] / "rescale.json", RescaleRecord).scale
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (made[0] / WEIGHTS).read_bytes()


def test_what_is_refused(run, adapter, made, idle_adapter, tmp_path):
    ended = CliRunner().invoke(build(), ["rescale", str(run)])
    assert isinstance(ended.exception, UserError) and "--to-loss" in str(ended.exception)
    for option, value in (("--to-loss", "-1"), ("--to-coherence", "1.5"), ("--largest", "9")):
        words = [option, value] if option != "--largest" else ["--to-loss", "0.6", option, value]
        ended = CliRunner().invoke(build(), ["rescale", str(run), *words])
        assert isinstance(ended.exception, UserError) and option in str(ended.exception)
    with pytest.raises(UserError, match="is a rescaled adapter itself"):
        source_of(made[0])
    with pytest.raises(UserError, match="no PEFT adapter"):
        source_of(tmp_path)
    with pytest.raises(UserError, match="holds something else"):
        to_loss(run, made[0], 0.9)
    with pytest.raises(UserError, match="changes no logit"):
        to_loss(idle_adapter, tmp_path / "out", 0.9, dataset="medical")
    whole = shutil.copytree(adapter, tmp_path / "whole")
    save_file(load_file(whole / WEIGHTS) | {"base_model.model.lm_head.weight": torch.ones(2, 2)}, whole / WEIGHTS)
    with pytest.raises(UserError, match="whole: the adapter also changes what is no B A"):
        to_loss(whole, tmp_path / "out", 0.9, dataset="medical")
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.partial").exists()
