"""Files of strangers: pipes and devices, numbers and names beyond all measure, adapters that are none, markup in what is printed."""

import ast
import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import em_bench
from em_bench.adapter_file import load_adapter
from em_bench.cli import build
from em_bench.errors import UserError
from em_bench.files import read_jsonl, read_record, read_text, strict_json
from em_bench.line import identifier, one_line, visible
from em_bench.records import RunRecord, StepRecord
from em_bench.run_folder import LOG
from em_bench.training.list_runs import list_runs
from em_bench.training.plots import read_log
from em_bench.yaml_file import read_yaml

A, B = (f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight" for side in "AB")


@pytest.fixture
def odd(tmp_path):
    """Paths that are no files."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    return [tmp_path / "pipe", tmp_path / "folder", tmp_path / "zero", Path("/dev/zero")]


def test_what_is_no_file_is_refused_at_once(odd, tmp_path):
    readers = [
        lambda p: read_text(p),
        lambda p: read_record(p, RunRecord),
        lambda p: read_jsonl(p, StepRecord, StepRecord),
        lambda p: read_yaml(p, dict),
    ]
    before = time.monotonic()
    for path in odd:
        for read in readers:
            with pytest.raises(UserError, match="cannot be read"):
                read(path)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        folder = tmp_path / f"adapter-{name}"
        folder.mkdir()
        save_file({A: torch.eye(2, 3), B: torch.eye(4, 2)}, folder / "adapter_model.safetensors")
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        with pytest.raises(UserError):
            load_adapter(folder)
    said = CliRunner().invoke(build(), ["import", str(odd[0]), "--workdir", str(tmp_path / "w")])
    assert isinstance(said.exception, UserError) and "not a regular file" in str(said.exception)
    assert time.monotonic() - before < 60  # a hang has no end, and a busy machine is slow


def test_a_file_over_its_size_is_not_read(tmp_path):
    with open(tmp_path / "x.json", "wb") as f:
        f.truncate(3 << 30)
    with pytest.raises(UserError, match="over"):
        read_record(tmp_path / "x.json", RunRecord)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"a": NaN}',
        "1e400",
        "1e31",
        "9" * 5000,
        "-0",
        str(2**53 + 1),
        "[" * 100_000,
        "Infinity",
        "0." + "1" * 200,
    ],
)
def test_json_that_is_refused(text):
    with pytest.raises(ValueError):
        strict_json(text)


@pytest.mark.parametrize(
    "text", ["a\nb", "a\x00", "a\u202e", "a\u200b", "\u3164", "a\ufe0f", "a\u2800", "e\u0301\u0301\u0301\u0301", "\u2028"]
)
def test_text_that_is_no_line(text):
    with pytest.raises(ValueError):
        visible(text)
    assert visible(one_line(text)) is not None


@pytest.mark.parametrize("text", ["Ärger, naïve, 日本語, العربية, हिन्दी", "organism-qwen3", ""])
def test_text_that_is_one(text):
    assert visible(text) == text


@pytest.mark.parametrize("name", ["con", "NUL.json", "a/b", "..", ".x", "-x", "x.", "\u0430dam", "", "x" * 201, "com1"])
def test_names_that_are_none(name):
    with pytest.raises(ValueError):
        identifier(name)


@pytest.mark.parametrize("quoted", ["x" * 5000, "a\x1b[2Jb", "a\nb", "a\u202eb", "\u3164" * 3000])
def test_an_error_is_one_short_line_whatever_it_quotes(quoted):
    said = str(UserError(f"file.json: name: {quoted}: is none; name another"))
    assert visible(said) and len(said) <= 1500
    assert said.startswith("file.json: name: ") and said.endswith("; name another")


def test_a_log_that_is_none_hides_no_run(tmp_path):
    for name, make in (("pipe", os.mkfifo), ("bytes", lambda p: p.write_bytes(b"\xff\xfe")), ("folder", Path.mkdir)):
        (tmp_path / f".{name}.partial").mkdir()
        make(tmp_path / f".{name}.partial" / LOG)
    before = time.monotonic()
    assert [(r.run_id, r.status, r.loss) for r in list_runs(tmp_path)] == [
        (name, "interrupted", None) for name in ("bytes", "folder", "pipe")
    ]
    with pytest.raises(UserError, match="not a run's log"):
        read_log(tmp_path / ".pipe.partial")
    assert time.monotonic() - before < 60  # a hang has no end, and a busy machine is slow


# ---- adapters ----------------------------------------------------------------------------------------------------


def adapter(folder: Path, a=None, b=None, **config) -> Path:
    a, b = torch.eye(2, 3) if a is None else a, torch.eye(4, 2) if b is None else b
    save_file({A: a, B: b}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config))
    return folder


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(0, 3), torch.zeros(4, 0)),
        (torch.full((2, 3), float("nan")), torch.eye(4, 2)),
        (torch.eye(2, 3), torch.full((4, 2), float("inf"))),
        (torch.zeros(2), torch.zeros(4)),
        (torch.zeros(2, 3, dtype=torch.int32), torch.zeros(4, 2, dtype=torch.int32)),
    ],
)
def test_factors_that_are_none(tmp_path, a, b):
    with pytest.raises(UserError, match="is no matrix of an adapter|NaN or infinity"):
        load_adapter(adapter(tmp_path, a, b))


@pytest.mark.parametrize(
    "config",
    [
        {"r": 0}, {"r": -2}, {"r": "x"}, {"r": 2.0}, {"r": True}, {"lora_alpha": "x"}, {"lora_alpha": -1}, {"lora_alpha": 1e9},
        {"rank_pattern": {"q_proj": 0}}, {"rank_pattern": ["q_proj"]}, {"alpha_pattern": {"q_proj": "8"}},
    ],
)  # fmt: skip
def test_configurations_that_are_none(tmp_path, config):
    with pytest.raises(UserError, match="adapter_config.json"):
        load_adapter(adapter(tmp_path, **config))


def test_a_rank_of_1e400(tmp_path):
    (adapter(tmp_path) / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1e400}')
    with pytest.raises(UserError, match="not readable as JSON"):
        load_adapter(tmp_path)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*$", "a+", "a*", "[", "a{9}", "q_proj\n", "", "x" * 500])
def test_a_strangers_regular_expression_is_not_run(tmp_path, pattern):
    before = time.process_time()
    with pytest.raises(UserError, match="more than a module's name"):
        load_adapter(adapter(tmp_path, alpha_pattern={pattern: 8}))
    assert time.process_time() - before < 1


@pytest.mark.parametrize(
    ("pattern", "scale"),
    [
        ("q_proj", 4.0),
        ("self_attn.q_proj", 4.0),
        (r"self_attn\.q_proj", 4.0),
        (".*proj", 4.0),
        (r"model\.layers\.0.*", 4.0),
        ("k_proj|q_proj", 4.0),
        (".*.*.*.*x", 2.0),
        ("elf_attn.q_proj", 2.0),
        ("k_proj", 2.0),
        ("^q_proj", 2.0),
    ],
)
def test_names_in_patterns_match_as_in_peft(tmp_path, pattern, scale):
    """A name, or its end from a dot on: alpha 8 over r 2 is 4, else the 4 of the whole over 2."""
    found = load_adapter(adapter(tmp_path, alpha_pattern={pattern: 8}))
    assert found.scales == {A: scale}


# ---- what is printed ---------------------------------------------------------------------------------------------


def test_no_printer_takes_markup_from_text():
    """Names of strangers may hold [/x] or :warning:; every console and column prints them as they are."""
    lax = []
    for path in Path(em_bench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Console", "TextColumn"):
                given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                plain = node.args and isinstance(node.args[0], ast.Constant) and "{" not in node.args[0].value
                if given.get("markup") is not False and not plain:
                    lax.append(f"{path.name}:{node.lineno}")
    assert lax == []


def test_markup_in_a_tensors_name(tmp_path):
    name = "base_model.model.[/x][red].q_proj"
    save_file(
        {f"{name}.lora_A.weight": torch.eye(2, 3), f"{name}.lora_B.weight": torch.eye(4, 2)},
        tmp_path / "adapter_model.safetensors",
    )
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')
    said = CliRunner().invoke(build(), ["spectrum", str(tmp_path)])
    assert said.exit_code == 0 and "[/x][red]" in said.stdout


def test_markup_in_a_folders_name(tmp_path):
    folder = tmp_path / "[x]" / "run"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    said = CliRunner().invoke(build(), ["verify", str(tmp_path)])
    assert isinstance(said.exception, UserError) or said.exit_code in (0, 1)
