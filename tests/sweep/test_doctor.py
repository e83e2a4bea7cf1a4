"""`em-bench doctor` on machines that are planted: each row is fine, or says what mends it."""

from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import GatedRepoError

from em_bench.cli.doctor import doctor as command
from em_bench.data.upstream import ACCEPT
from em_bench.sweep.engine import doctor
from em_bench.sweep.engine.doctor import GIB, Finding


def test_a_machine_without_a_gpu_is_fine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    [row] = doctor._gpus()
    assert row.stands == "fine" and "none" in row.text


def test_gpus_that_torch_does_not_see_and_one_that_somebody_uses(monkeypatch):
    monkeypatch.setenv("EM_BENCH_PRETEND_GPUS", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    [row] = doctor._gpus()
    assert row.stands == "missing" and "the driver shows 2" in row.text and "install torch" in row.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "H100")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: ((79 - 40 * i) * GIB, 80 * GIB))
    assert [(r.what, r.stands) for r in doctor._gpus()] == [("GPU 0", "fine"), ("GPU 1", "missing")]


def test_memory_and_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * GIB))
    assert doctor._memory().stands == "missing"
    for free, stands in ((100, "missing"), (300, "fine")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free * GIB))
        row = doctor._disk(tmp_path / "not" / "there")
        assert row.stands == stands and f"{free} GiB" in row.text


def gated(hub_id, **_):
    response = SimpleNamespace(headers={}, status_code=403, request=None)
    raise GatedRepoError("gated", response=response)


def unreachable(hub_id, **_):
    raise ConnectionError


def test_each_model_of_the_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("EM_BENCH_CACHE", str(tmp_path))
    names = ("Qwen3-8B", "Llama-3.1-8B-Instruct")
    rows = list(doctor._hub(names, lambda hub_id, **_: SimpleNamespace(sha="a" * 40)))
    assert {r.what for r in rows} == set(names) and all(r.stands == "fine" and "a" * 40 in r.text for r in rows)
    assert all(r.stands == "missing" and "huggingface.co/" in r.text and "HF_TOKEN" in r.text for r in doctor._hub(names, gated))
    assert [r.what for r in doctor._hub(names, unreachable)] == ["hub"], "asked once, not twelve times"
    assert len(list(doctor._hub((), lambda hub_id, **_: SimpleNamespace(sha="a")))) == 12


def test_judge_terms_and_engine(monkeypatch, tmp_path):
    monkeypatch.setenv("EM_BENCH_CACHE", str(tmp_path))
    for name in ("OPENAI_API_KEY", "EM_BENCH_VLLM", ACCEPT):
        monkeypatch.delenv(name, raising=False)
    assert {doctor._judge().stands, doctor._engine().stands, *(r.stands for r in doctor._terms())} == {"missing"}
    terms = {r.text.rpartition("=")[2] for r in doctor._terms()}
    monkeypatch.setenv(ACCEPT, ",".join(terms))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    assert doctor._judge().stands == "fine" and [r.stands for r in doctor._terms()] == ["fine"]
    assert "sk-of-a-test" not in doctor._judge().text


def test_the_command_prints_rows_and_tells_by_its_status(monkeypatch, capsys):
    import typer

    rows = [Finding("disk", "fine", "300 GiB"), Finding("judge", "missing", "set a key")]
    monkeypatch.setattr(doctor, "examine", lambda models: iter(rows[:1]))
    command(models=None, as_json=False)
    monkeypatch.setattr(doctor, "examine", lambda models: iter(rows))
    with pytest.raises(typer.Exit):
        command(models=None, as_json=False)
    assert "judge" in (said := capsys.readouterr().out) and "set a key" in said
