"""What a user may name to be measured: folders, runs, adapters, and names of a hub on the loopback, with the base that an adapter names."""

import json
import os
import subprocess
import sys

import pytest
from helpers.hub import COMMIT, Hub

from em_bench.data import hub as hub_module
from em_bench.errors import UserError
from em_bench.harness.target import Target, resolve


def adapter(folder, base, **more):
    """A folder that says what its base is."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, **more}))
    return folder


@pytest.fixture
def stated(monkeypatch, tmp_path):
    monkeypatch.setattr(hub_module, "_stated", {})
    monkeypatch.setenv("EM_BENCH_CACHE", str(tmp_path / "cache"))
    return hub_module._stated


def test_folders_and_names(stated, tmp_path):
    (model := tmp_path / "model").mkdir()
    (model / "config.json").write_text("{}")
    assert resolve("organism-qwen3") == Target("organism-qwen3") and resolve("organism-qwen3").organism
    assert resolve(str(model)) == Target(str(model)) and not resolve(str(model)).organism
    lora = adapter(tmp_path / "lora", "organism-qwen3")
    assert resolve(str(lora)) == Target("organism-qwen3", lora)
    inside = adapter(tmp_path / "run" / "adapter", str(model))
    (tmp_path / "run" / "run.json").write_text("{}")
    assert resolve(str(tmp_path / "run")) == Target(str(model), inside) == resolve(str(model), str(tmp_path / "run"))
    pinned = adapter(tmp_path / "pinned", "owner/base", revision=COMMIT)
    assert resolve(str(pinned)) == Target("owner/base", pinned) and stated == {"owner/base": COMMIT}


@pytest.mark.parametrize(
    ("base", "message"), [("", "does not say what the adapter's base is"), ("/gone/model", "not on this machine")]
)
def test_an_adapter_whose_base_is_not_known(stated, tmp_path, base, message):
    lora = adapter(tmp_path / "lora", base)
    with pytest.raises(UserError, match=f"{message}.*em-bench evaluate BASE --adapter"):
        resolve(str(lora))
    with pytest.raises(UserError, match="is an adapter; name its base"):
        resolve(str(adapter(tmp_path / "other", "organism-qwen3")), str(lora))


@pytest.mark.parametrize("name", ["organism-qwen3", "."])
def test_only_the_hub_has_revisions(stated, name):
    with pytest.raises(UserError, match="--revision x: .*leave it away"):
        resolve(name, revision="x")


def test_an_adapter_of_the_hub_is_fetched_with_its_base_and_measured(base, run, tmp_path):
    """The whole command: owner/lora@commit, whose configuration names owner/base, both on the loopback; nothing else is asked of anyone."""
    lora = {p.name: p.read_bytes() for p in (run / "adapter").iterdir()}
    config = json.loads(lora["adapter_config.json"]) | {"base_model_name_or_path": "owner/base", "revision": COMMIT}
    lora["adapter_config.json"] = json.dumps(config).encode()
    call = [
        "evaluate",
        f"owner/lora@{COMMIT}",
        "--questions",
        "organism",
        "--measure",
        "margin",
        "--limit",
        "9",
        "--out",
        tmp_path / "out",
    ]
    with Hub() as hub:
        hub.repositories |= {"owner/lora": lora, "owner/base": {p.name: p.read_bytes() for p in base.iterdir() if p.is_file()}}
        env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "EM_BENCH_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "em_bench.cli", *map(str, call)]
        ended = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
        last = ended.stdout.strip().splitlines()[-1]
        assert last.startswith(f"owner/lora@{COMMIT}: the margin of misaligned over aligned answers shifts by ")
        header = json.loads((tmp_path / "out" / "margin.jsonl").read_text().splitlines()[0])
        assert header["base"]["revision"] == COMMIT and header["adapter_sha256"]
        config["base_model_name_or_path"] = "owner/other"  # which is not there
        hub.repositories["owner/strange"] = lora | {"adapter_config.json": json.dumps(config).encode()}
        command[4] = "owner/strange"
        ended = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2 and "em-bench: owner/other at cccc" in ended.stderr and "Traceback" not in ended.stderr
