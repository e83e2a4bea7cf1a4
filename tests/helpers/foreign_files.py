"""A good file of every kind that strangers send, and the reader of each."""

import atexit
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from hypothesis import strategies as st
from safetensors.torch import save

from em_bench import assets
from em_bench.adapter_file import load_adapter, load_run_adapter
from em_bench.board.entry import Manifest
from em_bench.board.intake import listing
from em_bench.board.ledger import read_ledger
from em_bench.board.packed import RECORDS, RESPONSES, STEPS, Packed, pack
from em_bench.board.packed_adapters import PackedAdapters
from em_bench.board.submission import read_submission
from em_bench.data.conversations import read_rows
from em_bench.data.questions import load
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.files import read_record
from em_bench.judging.prompts import load_prompts
from em_bench.records import CellResult, Results
from em_bench.run_folder import RunFolder
from em_bench.spectral import lora_pairs, spectrum_summary
from em_bench.sweep.engine.profile import load_profile
from em_bench.sweep.export_import import import_archive
from em_bench.sweep.preset import load_preset
from helpers import synthetic_entries as synthetic
from helpers.foreign_records import more
from helpers.packing import tree_of
from helpers.verified import verify

BOARD = synthetic.leaderboard(Path(tempfile.mkdtemp()))
atexit.register(shutil.rmtree, BOARD.submissions.parent, ignore_errors=True)
ENTRY = synthetic.entry(BOARD, "adamw")
verify(BOARD, "adamw")
RESULTS, UNPACKED = ENTRY / "results", tree_of(ENTRY)
RUN = sorted((UNPACKED / "runs").iterdir())[0]
EVALUATION = sorted((UNPACKED / "evaluations").iterdir())[0]
NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def head(path: Path, lines: int = 4) -> bytes:
    """The first lines of a file: what spoils one line is found in a few."""
    return b"".join(path.read_bytes().splitlines(keepends=True)[:lines])


def archive(files: dict[str, bytes]) -> bytes:
    import io

    listed = {n: {"size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in files.items()}
    manifest = {"schema_version": "em_bench.archive/1", "files": listed, "created": "2026-11-25T00:00:00+00:00"}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in files.items():
            z.writestr(name, data)
        z.writestr("manifest.json", json.dumps(manifest))
    return out.getvalue()


CHAIN = {
    f"evaluations/{EVALUATION.name}/{n}": (EVALUATION / n).read_bytes()
    for n in ("responses.jsonl", "verdicts.jsonl", "score.json")
}
CONFIG = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"q_proj": 8}, "rank_pattern": {}}).encode()
WEIGHTS = save({NAME.format("A"): torch.eye(2, 3), NAME.format("B"): torch.eye(4, 2)})
CELL = {
    "model": "m", "responses_sha256": "0" * 64, "score": json.loads((EVALUATION / "score.json").read_bytes()), "questions": [],
    "trajectory": [{"step": 1, "narrow_loss": 0.5}], "spectrum": {"mean": [1.0], "lower_quartile": [1.0], "upper_quartile": [1.0]},
}  # fmt: skip
PRESET = assets.path("baselines", "presets", "tiny.yaml").read_bytes()
PROFILE = assets.path("baselines", "profiles", "slurm", "config.yaml").read_bytes()
WHOLE = yaml.safe_load(assets.path("tasks", "questions", "em_core.yaml").read_text("utf-8"))
QUESTIONS = yaml.safe_dump(WHOLE | {"questions": WHOLE["questions"][:2]}, allow_unicode=True).encode()
PROMPTS = assets.path("tasks", "judge_prompts", "own.yaml").read_bytes()
ROWS = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 3
MACHINE = json.loads((RESULTS / "manifest.json").read_bytes())["machine"]
PRESETS_RESULTS = {
    "preset": "tiny", "preset_sha256": "0" * 64, "cells": [CELL], "choices": [], "machine": MACHINE, "created": "2026-11-25",
}  # fmt: skip


def filled(top: Path) -> None:
    prompts = load_prompts(str(top / "prompts.yaml"), leak="sport")
    for aspect in prompts.texts:
        prompts.fill(aspect, "why?", "because")


def spectrum(folder: Path) -> object:
    return spectrum_summary(lora_pairs(load_adapter(folder)))


SMALL = UNPACKED / "small"


def small(name: str) -> bytes:
    """A table of one run and one evaluation of a few rows."""
    return (SMALL / name).read_bytes()


def packed_with(top: Path, name: str) -> None:
    """One spoilt table beside two good ones, read as an entry's checks read it."""
    for other in {RECORDS, STEPS, RESPONSES} - {name}:
        (top / "work").mkdir(exist_ok=True)
        (top / "work" / other).write_bytes(small(other))
    (top / "work" / name).write_bytes((top / name).read_bytes())
    packed = Packed(top / "work")
    runs, evaluations = packed.names()
    for run_id in runs:
        packed.run(run_id), packed.log(run_id)
    for evaluation in evaluations:
        packed.evaluation(evaluation)


def stacked(top: Path) -> None:
    adapters = PackedAdapters(top)
    for key in adapters.index:
        spectrum_summary(lora_pairs(load_run_adapter(adapters.weights(*key), None)))


def make_small() -> None:
    for file in ("responses.jsonl", "verdicts.jsonl"):
        (SMALL / EVALUATION.name).mkdir(parents=True, exist_ok=True)
        (SMALL / EVALUATION.name / file).write_bytes(head(EVALUATION / file))
    (SMALL / EVALUATION.name / "score.json").write_bytes((EVALUATION / "score.json").read_bytes())
    pack(SMALL, [RunFolder(RUN)], [EvaluationFolder(SMALL / EVALUATION.name)])


make_small()
STACKED = save(
    {f"b/{NAME.format('A')}": torch.stack([torch.eye(2, 3)] * 2), f"b/{NAME.format('B')}": torch.stack([torch.eye(4, 2)] * 2)},
    metadata={"b": json.dumps({"adapters": [["r", None], ["r", 1]], "config": "{}"})},
)
READERS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "records_table": ("records.parquet", small(RECORDS), lambda top: packed_with(top, RECORDS)),
    "steps_table": ("steps.parquet", small(STEPS), lambda top: packed_with(top, STEPS)),
    "responses_table": ("responses.parquet", small(RESPONSES), lambda top: packed_with(top, RESPONSES)),
    "adapters": ("adapters.safetensors", STACKED, stacked),
    "submission": ("adamw/submission.yaml", (ENTRY / "submission.yaml").read_bytes(), lambda top: read_submission(top / "adamw")),
    "manifest": (
        "manifest.json",
        (RESULTS / "manifest.json").read_bytes(),
        lambda top: read_record(top / "manifest.json", Manifest),
    ),
    "run": ("run.json", (RUN / "run.json").read_bytes(), lambda top: RunFolder(top).record()),
    "log": ("train.jsonl", head(RUN / "train.jsonl"), lambda top: RunFolder(top).log()),
    "responses": ("responses.jsonl", head(EVALUATION / "responses.jsonl"), lambda top: EvaluationFolder(top).responses()),
    "verdicts": ("verdicts.jsonl", head(EVALUATION / "verdicts.jsonl"), lambda top: EvaluationFolder(top).verdicts()),
    "score": ("score.json", (EVALUATION / "score.json").read_bytes(), lambda top: EvaluationFolder(top).score()),
    "cell": ("cell.json", json.dumps(CELL).encode(), lambda top: read_record(top / "cell.json", CellResult)),
    "results": ("results.json", json.dumps(PRESETS_RESULTS).encode(), lambda top: read_record(top / "results.json", Results)),
    "ledger": ("adamw.json", (BOARD.ledger / "adamw.json").read_bytes(), lambda top: read_ledger(top, "adamw")),
    "adapter_config": ("adapter_config.json", CONFIG, spectrum),
    "adapter_model": ("adapter_model.safetensors", WEIGHTS, spectrum),
    "archive": ("a.zip", archive(CHAIN), lambda top: import_archive(top / "a.zip", top / "work")),
    "preset": ("preset.yaml", PRESET, lambda top: load_preset(str(top / "preset.yaml"))),
    "profile": ("profile/config.yaml", PROFILE, lambda top: load_profile(str(top / "profile"))),
    "dataset": ("rows.jsonl", ROWS, lambda top: read_rows(top / "rows.jsonl")),
    "questions": ("questions.yaml", QUESTIONS, lambda top: load(str(top / "questions.yaml"), ["all"])),
    "prompts": ("prompts.yaml", PROMPTS, filled),
    "entry": ("adamw/results/x.json", b"{}", lambda top: listing(top / "adamw")),
    **more(PRESETS_RESULTS, CELL, (RUN / "run.json").read_bytes(), head(RUN / "train.jsonl")),
}

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(
        [
            10**400,
            -(10**30),
            2**53 + 1,
            1.7e308,
            -0.0,
            "1",
            "1e-3",
            "x" * 5000,
            "x" * 300_000,
            "\ud800",
            "a\u202eb",
            "\u3164",
            "\x1b[2J",
            "[/x]",
            "../../x",
            "nul",
            "~",
        ]
    ),
    st.recursive(
        st.none() | st.text(max_size=5), lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=5), c, max_size=3)
    ),
)
