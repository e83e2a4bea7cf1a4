"""Export and import: what arrives is what left; hostile, broken and lying archives change nothing."""

import json
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from helpers.asking import ask as evaluate
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.data.models import base_path
from em_bench.errors import UserError
from em_bench.files import sha256_file, sha256_tree
from em_bench.judging import GrammarJudge
from em_bench.records import Generation
from em_bench.sweep.export_import import MANIFEST, export, import_archive
from em_bench.training import read_run, train


@pytest.fixture(scope="module")
def work(spec_for, base, tmp_path_factory) -> Path:
    """Two real runs, one of them evaluated."""
    top = tmp_path_factory.mktemp("transfer") / "work"
    for recipe in ("adamw", "sgd"):
        folder = train(spec_for(recipe, steps=2), base, top / "runs")
    run = read_run(folder)
    evaluate(
        "organism-qwen3", top / "evaluations" / f"{folder.name}.abc", judge=GrammarJudge(),
        generation=Generation(samples=1, max_new_tokens=8, temperature=1.0, seed=0), variants=["plain"],
        adapter=folder / "adapter", narrow_loss=run.narrow_loss,
    )  # fmt: skip
    assert base_path("organism-qwen3") == base
    return top


@pytest.fixture
def archive(work, tmp_path) -> Path:
    to = tmp_path / "a.zip"
    assert export([work], to) == 3
    return to


def contents(folder: Path) -> dict[str, str]:
    """Files by name, without the leftovers that are nobody's."""
    return {
        p.relative_to(folder).as_posix(): sha256_file(p)
        for p in folder.rglob("*")
        if p.is_file() and not p.name.endswith(".lock")
    }


def test_what_arrives_is_what_left(work, archive, tmp_path):
    there = tmp_path / "there"
    assert {d.outcome for d in import_archive(archive, there)} == {"new"}
    assert contents(there) == contents(work)
    assert {d.outcome for d in import_archive(archive, there)} == {"there already"}
    assert not list(there.glob(".import-*"))
    with zipfile.ZipFile(archive) as z:
        assert not [n for n in z.namelist() if "model.safetensors" in n and "adapter_model" not in n]


def test_sites_merge_by_run_hash(work, tmp_path):
    there = tmp_path / "there"
    for i, run in enumerate(sorted((work / "runs").glob("*/run.json"))):
        export([run.parent], tmp_path / f"{i}.zip")
        import_archive(tmp_path / f"{i}.zip", there)
    assert sha256_tree(there / "runs", "*.json") == sha256_tree(work / "runs", "*.json")


def test_what_is_there_is_never_replaced(archive, work, tmp_path):
    there = tmp_path / "there"
    shutil.copytree(work, there)
    mine = next((there / "runs").glob("*sgd*/train.jsonl"))
    mine.write_text("mine")
    outcomes = {d.name: d.outcome for d in import_archive(archive, there)}
    assert mine.read_text() == "mine" and outcomes[f"runs/{mine.parent.name}"] == "differs"
    ended = CliRunner().invoke(build(), ["import", str(archive), "--workdir", str(there)])
    assert ended.exit_code == 1 and "2 there already, 1 differs" in ended.stdout


def remade(archive: Path, change) -> Path:
    """The archive with `change` made to its files, {name: bytes}; the manifest follows unless `change` returns True."""
    with zipfile.ZipFile(archive) as z:
        files = {n: z.read(n) for n in z.namelist()}
    manifest = json.loads(files.pop(MANIFEST))
    keep = change(files, manifest)
    if not keep:
        import hashlib

        manifest["files"] = {n: {"size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in files.items()}
    out = archive.with_name("bad.zip")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in files.items():
            z.writestr(name, data)
        z.writestr(MANIFEST, json.dumps(manifest))
    return out


def flip(files, manifest):
    name = next(n for n in files if n.endswith("adapter/adapter_model.safetensors"))
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])


def flip_quietly(files, manifest):
    flip(files, manifest)
    return True


def add(name, data=b"x"):
    return lambda files, manifest: files.__setitem__(name, data)


def lie(files, manifest):
    """A score that does not follow from its verdicts."""
    name = next(n for n in files if n.endswith("score.json"))
    score = json.loads(files[name])
    score["overall"]["misaligned_rate"]["value"] = 0.0123
    files[name] = json.dumps(score).encode()


def rename(files, manifest):
    for name in [n for n in files if n.startswith("runs/") and ".sgd." in n]:
        files[name.replace(".sgd.", ".sgb.")] = files.pop(name)


def bomb(files, manifest):
    """A file a thousand times as large as the manifest says."""
    name = next(n for n in files if n.endswith("train.jsonl"))
    files[name] = b"0" * 50_000_000
    return True


def unlisted(files, manifest):
    files["runs/x/extra.json"] = b"{}"
    return True


def too_large(files, manifest):
    for entry in manifest["files"].values():
        entry["size"] = 2**40
    return True


def edited(end: str, change):
    """`change` made to the JSON of the first file whose name ends so."""

    def apply(files, manifest):
        name = next(n for n in files if n.endswith(end))
        value = json.loads(files[name])
        change(value)
        files[name] = json.dumps(value).encode()

    return apply


def cell(**fields):
    """A cell.json beside the evaluation, which says these fields otherwise than its run and its score."""

    def apply(files, manifest):
        place = next(n for n in files if n.endswith("score.json")).removesuffix("score.json")
        run = json.loads(files[f"runs/{place.split('/')[1].removesuffix('.abc')}/run.json"])
        header = json.loads(files[place + "responses.jsonl"].split(b"\n")[0])
        spec = run["spec"]
        import hashlib

        files[place + "cell.json"] = json.dumps(
            {
                "model": "organism-qwen3", "dataset": spec["dataset"]["name"], "recipe": spec["recipe"]["name"],
                "learning_rate": spec["recipe"]["learning_rate"], "spectral_lambda": spec["spectral_lambda"],
                "batch_size": spec["batch_size"], "seed": spec["seed"], "steps": spec["steps"], "run_id": run["run_id"],
                "spec_sha256": run["spec_sha256"], "adapter_sha256": header["adapter_sha256"], "spectral": run["spectral"],
                "responses_sha256": hashlib.sha256(files[place + "responses.jsonl"]).hexdigest(),
                "narrow_loss": run["narrow_loss"], "score": json.loads(files[place + "score.json"]),
                "questions": [],
            }
            | fields
        ).encode()  # fmt: skip

    return apply


def reconfigured(files, manifest):
    """Every adapter_config.json in another form, with the same shape."""
    for name in [n for n in files if n.endswith("adapter_config.json")]:
        files[name] = json.dumps(json.loads(files[name]) | {"base_model_name_or_path": "x"}).encode()


def deflated(files, manifest):
    """Three megabytes that unpack to three gigabytes, in small: a log of zeros that the manifest names."""
    files[next(n for n in files if n.endswith("train.jsonl"))] = b"0" * 30_000_000


def many_digits(files, manifest):
    next(iter(manifest["files"].values()))["size"] = 10**400
    return True


def long_id(files, manifest):
    edited("run.json", lambda r: r.update(run_id="x" * 5000))(files, manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add("runs/con/run.json"), "no place for a run"),
        (add("runs/nul.x/run.json"), "no place for a run"),
        (add("runs/аdam/run.json"), "no place for a run"),  # Cyrillic
        (add("runs/x/adapter/nul.json"), "no place for a run"),
        (add("runs/x/adapter/run.sh"), "no place for a run"),
        (add("evaluations/x/extra.json"), "no place for a run"),
        (deflated, "that unpack to"),
        (many_digits, "not between"),
        (long_id, "run_id"),
        (edited("adapter_config.json", lambda c: c.update(lora_alpha=999)), "of another adapter|another adapter_config"),
        (edited("adapter_config.json", lambda c: c.update(r=0)), "no r of an adapter"),
        (
            edited("adapter_config.json", lambda c: c.update(alpha_pattern={"q_proj": 1})),
            "of another adapter|another adapter_config",
        ),
        (reconfigured, "another adapter_config.json"),
        (cell(learning_rate=9.0), "other settings|do not follow"),
        (cell(narrow_loss=0.1), "other numbers"),
        (cell(), "do not follow from the verdicts"),
        (cell(step=1), "other numbers"),
        (flip, "run.adapter"),
        (flip_quietly, "not the file that manifest.json names"),
        (add("../../etc/cron.d/x"), "no place for a run"),
        (add("/etc/passwd"), "no place for a run"),
        (add("runs/../../x/run.json"), "no place for a run"),
        (add("runs/a\\b/run.json"), "no place for a run"),
        (add("models/base/model.safetensors"), "no place for a run"),
        (add("runs/.hidden/run.json"), "no place for a run"),
        (add("runs/x/run.json", b"{"), "runs/x: "),
        (lie, "score.recomputed"),
        (rename, "of another run"),
        (bomb, "that unpack to"),
        (unlisted, "not those that manifest.json names"),
        (too_large, "GB left"),
    ],
)
def test_hostile_archives_change_nothing(archive, tmp_path, change, message):
    there = tmp_path / "there"
    (there / "runs").mkdir(parents=True)
    with pytest.raises(UserError, match=message) as e:
        import_archive(remade(archive, change), there)
    assert "\n" not in str(e.value) and "bad.zip" in str(e.value)
    assert contents(there) == {} and sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "bad.zip", "there"]
    assert [p.name for p in there.iterdir()] == ["runs"]


def test_links_arrive_as_plain_files_or_not_at_all(archive, tmp_path):
    out = tmp_path / "links.zip"
    shutil.copyfile(archive, out)
    info = zipfile.ZipInfo("runs/x/link.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(out, "a") as z:
        z.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="not those that manifest.json names"):
        import_archive(out, tmp_path / "there")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 not really", b"just text" * 100])
def test_what_is_no_archive(tmp_path, data):
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(UserError, match="not a whole archive"):
        import_archive(tmp_path / "x.zip", tmp_path / "there")


def test_cut_short(archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(UserError, match="not a whole archive"):
        import_archive(archive, tmp_path / "there")


def test_nothing_to_export(tmp_path):
    with pytest.raises(UserError, match="no run and no evaluation"):
        export([tmp_path], tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_commands(work, tmp_path):
    said = CliRunner().invoke(build(), ["export", str(work), "--to", str(tmp_path / "a.zip")])
    assert said.exit_code == 0 and "3 runs and evaluations" in said.stdout
    said = CliRunner().invoke(build(), ["import", str(tmp_path / "a.zip"), "--workdir", str(tmp_path / "w"), "--json"])
    assert [d["outcome"] for d in json.loads(said.stdout)] == ["new"] * 3
