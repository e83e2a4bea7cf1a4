"""A base that is too large for the machine is told before anything of it is loaded, with how much it needs."""

import json

import pytest
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.errors import UserError
from em_bench.harness.load_model import load_model
from em_bench.training import fits
from em_bench.training.base import load_base

SHAPE = [8192, 1 << 20]  # 2**33 numbers: 32 GiB in float32


@pytest.fixture
def huge(tmp_path):
    """A folder whose weights are announced and not there: loading a single one would fail in another way."""
    header = json.dumps(
        {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": SHAPE, "data_offsets": [0, 1 << 35]}}
    ).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return tmp_path


@pytest.mark.parametrize(("dtype", "gib"), [("float32", "32.0"), ("bfloat16", "16.0"), ("nf4", "4.4")])
def test_it_says_how_much_it_needs(huge, monkeypatch, dtype, gib):
    monkeypatch.setattr(fits, "free_bytes", lambda device: 3 << 30)
    for load in (load_base, lambda folder, dtype, device: load_model(folder, dtype=dtype, device=device)):
        with pytest.raises(UserError) as e:
            load(huge, dtype, "cpu")
        said = str(e.value)
        assert f"take {gib} GiB in {dtype}, and 3.0 GiB are free on cpu" in said and "\n" not in said


def test_one_that_fits_a_share_of_it_passes(huge, monkeypatch):
    monkeypatch.setattr(fits, "free_bytes", lambda device: 9 << 30)
    fits.check_fits(huge, "bfloat16", "cpu", share=2)
    with pytest.raises(UserError):
        fits.check_fits(huge, "bfloat16", "cpu")


def test_numbers_are_those_of_the_model(base):
    model = load_base(base)
    assert fits.numbers(base) == sum(p.numel() for p in model.parameters())


def test_a_limit_of_the_container_counts(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(fits, "CGROUP", limit)
    free = fits.free_bytes("cpu")
    limit.write_text("4096\n")
    assert fits.free_bytes("cpu") == 4096
    limit.write_text("max\n")
    assert fits.free_bytes("cpu") == pytest.approx(free, rel=0.5)


def test_training_says_it_in_one_line(base, tmp_path, monkeypatch):
    monkeypatch.setattr(fits, "free_bytes", lambda device: 1 << 10)
    done = CliRunner().invoke(
        build(), ["train", str(base), "--dataset", "medical", "--steps", "1", "--out", str(tmp_path / "runs")]
    )
    assert isinstance(done.exception, UserError) and "GiB are free on cpu" in str(done.exception)
    assert not list((tmp_path / "runs").glob("*/run.json"))
