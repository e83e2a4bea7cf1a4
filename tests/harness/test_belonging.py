"""An adapter on a base that it was not trained on: refused by everything that measures, unless --force, which is recorded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.asking import ask as evaluate
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.data.models import base_ref
from em_bench.errors import UserError
from em_bench.files import read_jsonl, read_record
from em_bench.harness.belonging import belonging
from em_bench.harness.load_model import load_model
from em_bench.judging import GrammarJudge
from em_bench.records import Generation, Response, ResponsesHeader, ScoreRecord
from em_bench.training import read_run
from em_bench.verify.chain import unproven, verify

COMMIT, OTHER = "a" * 40, "b" * 40
ONE = Generation(samples=1, max_new_tokens=8, temperature=0.0)


@pytest.fixture(scope="module")
def other_base(base, tmp_path_factory) -> Path:
    """A base of the same shapes and with the same files beside it, whose weights are others."""
    folder = tmp_path_factory.mktemp("other") / "base"
    shutil.copytree(base, folder)
    path = folder / "model.safetensors"
    torch.manual_seed(0)
    save_file({k: v + 0.01 * torch.randn_like(v) for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def copied(adapter, tmp_path_factory) -> Path:
    """The adapter without its run."""
    return Path(shutil.copytree(adapter, tmp_path_factory.mktemp("copied") / "lora"))


def ask(base, folder, adapter, **options) -> ScoreRecord:
    return evaluate(
        base, folder, adapter=adapter, judge=GrammarJudge(), generation=ONE, variants=["plain"],
        **options,
    )  # fmt: skip


def test_the_trainer_says_what_its_adapter_belongs_to(run):
    spec = read_run(run).spec
    for folder in (run / "adapter", *(run / "checkpoints").iterdir()):
        said = json.loads((folder / "adapter_config.json").read_text())
        assert (said["base_model_name_or_path"], said["revision"]) == ("organism-qwen3", spec.base.revision)


@pytest.mark.parametrize("which", ["adapter", "copied"])
def test_another_base_of_the_same_shapes_is_refused(which, other_base, tmp_path, request):
    adapter = request.getfixturevalue(which)
    with pytest.raises(UserError, match="was trained on organism-qwen3 .*--force"):
        ask(other_base, tmp_path / "out", adapter)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="was trained on organism-qwen3"):
        load_model(other_base, adapter)


def test_inspect_refuses_it(adapter, other_base, command):
    arguments = ["em_bench/free_form", "--model", "embench/local", "-T", "questions=organism", "-T", "epochs=1", "--limit", "1"]
    where = ["-M", f"base={other_base}", "-M", f"adapter={adapter}", "--display", "plain"]
    ended = command("inspect_ai", "eval", *arguments, *where, code=None)
    assert "was trained on organism-qwen3" in " ".join((ended.stdout + ended.stderr).split())


def test_forced_is_written_down_and_shown(adapter, run, other_base, tmp_path):
    out = tmp_path / "evaluation"
    arguments = [
        "evaluate",
        other_base,
        "-a",
        adapter,
        "-q",
        "organism",
        "--variants",
        "plain",
        "-n",
        "1",
        "--max-new-tokens",
        "8",
    ]
    ended = CliRunner().invoke(build(), [*map(str, arguments), "--out", str(out), "--force"])
    assert ended.exit_code == 0, ended.output
    rate = next(line for line in ended.output.splitlines() if "misaligned rate" in line)
    assert rate.rstrip().endswith("(forced)") and "forced: the adapter was trained on organism-qwen3" in ended.output
    header, _ = read_jsonl(out / "responses.jsonl", ResponsesHeader, Response)
    score = read_record(out / "score.json", ScoreRecord)
    assert header.forced and score.forced == header.forced
    page = tmp_path / "page.html"
    assert CliRunner().invoke(build(), ["score", str(out), "--page", str(page)]).exit_code == 0
    assert "Rates (forced)" in page.read_text()
    shutil.copytree(run, tmp_path / run.name)
    checks = {c.id: c for f, found in verify(tmp_path) for c in found if f == out}
    assert checks["responses.base"].passed and "forced" in checks["responses.base"].detail
    assert [text for _, text in unproven(tmp_path)] == [f"forced: the adapter {header.forced}"]
    for name in ("responses.jsonl", "verdicts.jsonl", "score.json"):  # a chain that hides it
        (out / name).write_text((out / name).read_text().replace(json.dumps(header.forced), "null"))
    assert "responses.base" in {c.id for _, found in verify(tmp_path) for c in found if not c.passed}


def test_an_evaluation_knows_its_run(adapter, run, tmp_path):
    """So that `verify` checks the adapter of a plain `evaluate`."""
    out, step = tmp_path / "evaluation", max(int(p.name) for p in (run / "checkpoints").iterdir() if int(p.name) < 30)
    ask("organism-qwen3", out, adapter)
    ask("organism-qwen3", tmp_path / "early", run / "checkpoints" / str(step))
    said = [read_jsonl(f / "responses.jsonl", ResponsesHeader, Response)[0] for f in (out, tmp_path / "early")]
    assert [(h.run_id, h.step) for h in said] == [(run.name, None), (run.name, step)]
    assert [f.name for f, text in unproven(tmp_path) if "is not checked" in text] == ["early", "evaluation"]
    shutil.copytree(run, tmp_path / run.name)
    found = {f.name: {c.id: c.passed for c in checks} for f, checks in verify(tmp_path)}
    assert all(found[name]["responses.adapter"] and found[name]["responses.base"] for name in ("early", "evaluation"))
    file = out / "responses.jsonl"
    file.write_text(file.read_text().replace(read_run(run).adapter_sha256, "0" * 64))
    assert "responses.adapter" in {c.id for _, checks in verify(tmp_path) for c in checks if not c.passed}


def test_bytes_that_are_not_the_runs_are_refused(run, tmp_path):
    """A folder inside a run is not the run's adapter because it lies there."""
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(run / "checkpoints" / "1" / "adapter_model.safetensors", tmp_path / "run" / "adapter")
    with pytest.raises(UserError, match=r"is not the adapter that .*run/run.json names"):
        ask("organism-qwen3", tmp_path / "out", tmp_path / "run" / "adapter")


def test_the_dtype_is_that_of_the_loaded_model(base, tmp_path):
    loaded = load_model(base, dtype="bfloat16")
    assert next(loaded.model.parameters()).dtype == torch.bfloat16
    ask(base, tmp_path, None, loaded=loaded)
    assert read_jsonl(tmp_path / "responses.jsonl", ResponsesHeader, Response)[0].dtype == "bfloat16"


@pytest.mark.parametrize(
    "name, revision, verdict",
    [
        ("Qwen/Qwen3-8B", None, "same"),
        ("qwen/qwen3-8b", "main", "same"),
        ("Qwen/Qwen3-8B", COMMIT, "same"),
        ("Qwen/Qwen3-8B", OTHER, "other"),
        ("Qwen/Qwen3-14B", None, "other"),
        ("someone/Qwen3-8B-abliterated", None, "other"),
        ("organism-qwen3", "c" * 64, "other"),
        ("/elsewhere/models/Qwen3-8B", None, "unknown"),
        ("/elsewhere/models/Qwen3-32B", None, "other"),
        ("/elsewhere/models/qwen-tuned", None, "unknown"),
        ("/elsewhere/models/base", None, "unknown"),
        (f"/elsewhere/models--Qwen--Qwen3-8B/snapshots/{COMMIT}", None, "unknown"),
        (None, None, "unknown"),
    ],
)
def test_what_is_certain_of_a_foreign_adapter(name, revision, verdict, tmp_path, capsys):
    """On a base from the hub: its id or commit contradicts; a path of another machine does not."""
    folder = tmp_path / "models--Qwen--Qwen3-8B" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name, "revision": revision}))
    for base in ("Qwen/Qwen3-8B", "Qwen3-8B", str(folder)):
        if verdict == "other":
            with pytest.raises(UserError, match="was trained on .*; name that base, or .* --force"):
                belonging(tmp_path, base, folder)
            assert "was trained on" in belonging(tmp_path, base, folder, force=True).forced
        else:
            assert belonging(tmp_path, base, folder).forced is None
        assert ("cannot be known" in capsys.readouterr().err) == (verdict == "unknown")


def test_a_base_that_lies_here_is_compared_by_its_weights(tmp_path):
    for name, value in (("mine", 1.0), ("copy", 1.0), ("theirs", 2.0)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.full((2,), value)}, tmp_path / name / "model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "mine")}))
    for name in ("mine", "copy"):
        assert belonging(tmp_path, str(tmp_path / name), tmp_path / name).forced is None
    with pytest.raises(UserError, match="was trained on"):
        belonging(tmp_path, str(tmp_path / "theirs"), tmp_path / "theirs")


def test_a_folder_that_has_changed_since_training_is_another_base(tmp_path):
    base, lora = tmp_path / "base", tmp_path / "lora"
    base.mkdir(), lora.mkdir()
    save_file({"w": torch.ones(2)}, base / "model.safetensors")
    said = {"base_model_name_or_path": str(base), "revision": base_ref(str(base), base).revision}
    (lora / "adapter_config.json").write_text(json.dumps(said))
    assert belonging(lora, str(base), base).forced is None
    save_file({"w": torch.zeros(2)}, base / "model.safetensors")
    with pytest.raises(UserError, match="was trained on"):
        belonging(lora, str(base), base)


@pytest.mark.slow
def test_lm_evals_own_command_refuses_it(adapter, other_base, command):
    model = [
        "--model",
        "hf",
        "--model_args",
        f"pretrained={other_base},peft={adapter}",
        "--apply_chat_template",
        "--device",
        "cpu",
    ]
    ended = command("em-bench", "lm-eval", "run", "--tasks", "em_organism", "--limit", "1", *model, code=2)
    assert "was trained on organism-qwen3" in " ".join((ended.stdout + ended.stderr).split())


def test_the_page_of_an_adapter_has_its_base_beside_it_where_evaluate_put_both(adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def em_bench(*arguments: object) -> None:
        ended = CliRunner().invoke(build(), [*map(str, arguments)])
        assert ended.exit_code == 0, ended.output

    em_bench("evaluate", adapter, "-q", "organism", "--variants", "plain", "-n", 1, "--max-new-tokens", 8, "--limit", 4)
    at = {
        "-" in p.parent.name.removeprefix("organism-qwen3"): p for p in (tmp_path / "em_bench_work" / "evaluations").glob("*/*")
    }
    for name, options in {"found": (), "named": ("--base", at[False])}.items():
        em_bench("score", at[True], "--page", f"{name}.html", *options)
    assert Path("found.html").read_text() == Path("named.html").read_text()
    em_bench("score", at[False], "--page", "alone.html")
    assert "its base" in Path("found.html").read_text() and "its base" not in Path("alone.html").read_text()
