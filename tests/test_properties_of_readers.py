"""Every reader of foreign bytes, on spoiled and made-up ones: a record or one line of UserError; no traceback, no hang, no memory, no file.

A few hundred examples in `make test`, ten thousand in `make test-slow`.
"""

import contextlib
import copy
import gzip
import io
import json
import os
import re
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from helpers.foreign_files import CHAIN, CONFIG, READERS, WEIGHTS, archive, odd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from em_bench.errors import UserError
from em_bench.files import json_line
from em_bench.harness.served.requests import read_said
from em_bench.harness.served_canary import read_greedy
from em_bench.judging.reply import (
    Malformed,
    Unsettled,
    read_completion,
    read_score,
    read_yes_no,
    reply_of,
    server_words,
    whole_numbers,
)
from em_bench.judging.served_replies import between, read_prompt
from em_bench.line import visible
from em_bench.records import Response

FEW, MANY = 12, 700  # examples a reader: some 400, and over 20,000
SECONDS, MEMORY = 2.0, 200 << 20
LAUGHS = b"\nl0: &l0 [x]\n" + b"".join(b"l%d: &l%d [%s]\n" % (i, i, b", ".join([b"*l%d" % (i - 1)] * 10)) for i in range(1, 9))


def places(value: object, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for k, v in inner for p in ((*path, k), *places(v, (*path, k)))]


def put(data: st.DataObject, value: object) -> object:
    """The value with something odd at one or two of its places, or a key more, or one less."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 2))):
        there = places(value)
        if not there:
            return data.draw(odd)
        *way, last = data.draw(st.sampled_from(there))
        at = value
        for key in way:
            at = at[key]
        how = data.draw(st.sampled_from(["odd", "odd", "odd", "gone", "more"]))
        if how == "gone":
            del at[last]
        elif how == "more" and isinstance(at, dict):
            at[data.draw(st.text(max_size=10))] = data.draw(odd)
        else:
            at[last] = data.draw(odd)
    return value


def spoilt(data: st.DataObject, name: str, seed: bytes) -> bytes:
    """Of the seed: values changed where it is JSON or YAML, or bytes changed, cut, doubled, or all others."""
    how = data.draw(st.sampled_from(["value", "value", "value", "value", "bytes", "cut", "splice", "other", "twice"]))
    kind = name.rsplit(".")[-1]
    if how == "value" and kind == "json":
        return json.dumps(put(data, json.loads(seed))).encode()
    if how == "value" and kind == "gz":
        return gzip.compress(spoilt(data, name.removesuffix(".gz"), gzip.decompress(seed)))
    if how == "value" and kind == "jsonl":
        lines = seed.decode().splitlines()
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at] = json.dumps(put(data, json.loads(lines[at])))
        return ("\n".join(lines) + "\n").encode()
    if how == "value" and kind == "yaml":
        try:
            return yaml.safe_dump(put(data, yaml.safe_load(seed)), allow_unicode=True).encode("utf-8", "surrogatepass")
        except (yaml.YAMLError, ValueError):
            how = "bytes"
    if how == "value" and kind == "zip":
        files = dict(CHAIN)
        at = data.draw(st.sampled_from(sorted(files)))
        if data.draw(st.booleans()):
            files[at] = spoilt(data, at, files[at])
        else:
            files[data.draw(st.sampled_from(["evaluations/", "runs/", "", "/"])) + data.draw(st.text(max_size=20))] = files.pop(
                at
            )
        try:
            return archive(files)
        except (ValueError, OSError, UnicodeError, IndexError):
            how = "bytes"
    if how == "value" and kind == "parquet":
        try:
            return retable(data, seed)
        except (pa.ArrowException, TypeError, ValueError, AttributeError, KeyError, OverflowError):
            how = "bytes"
    if how == "cut":
        return seed[: data.draw(st.integers(0, len(seed)))]
    if how == "splice":
        at = data.draw(st.integers(0, len(seed)))
        return (
            seed[:at]
            + data.draw(st.binary(max_size=40) | st.sampled_from([b"[" * 5000, b"9" * 5000, b"&a [*a]", LAUGHS, b"\xff\xfe"]))
            + seed[at:]
        )
    if how == "other":
        return data.draw(st.binary(max_size=200))
    if how == "twice":
        return seed + seed
    changed = bytearray(seed)
    for at in data.draw(st.lists(st.integers(0, len(seed) - 1), min_size=1, max_size=4)):
        changed[at] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(changed)


def retable(data: st.DataObject, seed: bytes) -> bytes:
    """A table with odd values, as they fit its columns or as columns of their own types."""
    table = pq.read_table(io.BytesIO(seed))
    rows = put(data, table.to_pylist())
    fitting = data.draw(st.booleans())
    out = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows, table.schema if fitting else None),
        out,
        compression=data.draw(st.sampled_from(["zstd", "zstd", "zstd", "snappy"])),
        write_statistics=False,
        store_schema=False,
    )
    return out.getvalue()


def peak(reset: bool = False) -> int:
    """Bytes of memory that this process had at most since the last reset; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        said = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", said)[1]) << 10
    return 0


def inside(top: Path) -> set[str]:
    return {p.relative_to(top).as_posix() for p in top.rglob("*")}


def check_reader(name: str, top: Path, data: st.DataObject) -> None:
    file, seed, read = READERS[name]
    (top / file).parent.mkdir(parents=True, exist_ok=True)
    if name.startswith("adapter"):
        (top / "adapter_config.json").write_bytes(CONFIG)
        (top / "adapter_model.safetensors").write_bytes(WEIGHTS)
    if name == "entry":
        file = "adam/" + "/".join(
            data.draw(
                st.lists(
                    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12),
                    min_size=1,
                    max_size=3,
                )
            )
        )
        try:
            (top / file).parent.mkdir(parents=True, exist_ok=True)
            (top / file).write_bytes(b"{}")
        except OSError:
            return
    else:
        (top / file).write_bytes(spoilt(data, file, seed))
    before, start = inside(top.parent), time.process_time()
    room = peak(reset=True)
    try:
        read(top)
    except UserError as e:
        said = str(e)
        assert said and visible(said) and len(said) < 2000, said[:300]
        refused = True
    else:
        refused = False
    assert time.process_time() - start < SECONDS
    assert peak() - room < MEMORY, f"{peak() - room >> 20} MiB"
    new = {p for p in inside(top.parent) - before if not p.startswith(f"{top.name}/work")}
    assert not new, new
    if name == "archive" and refused:
        assert not [p for p in (top / "work").rglob("*") if p.is_file()]


def check_reply(data: st.DataObject) -> None:
    """A judge's reply: read, malformed or unsettled."""
    body = put(
        data,
        {
            "choices": [
                {
                    "message": {"content": "85", "reasoning": None},
                    "finish_reason": "stop",
                    "logprobs": {
                        "content": [
                            {"token": "85", "top_logprobs": [{"token": "85", "logprob": -0.1}, {"token": "9", "logprob": -3}]}
                        ]
                    },
                }
            ],
            "error": {"message": "no"},
            "prompt_logprobs": [None, {"7": {"logprob": -0.5, "rank": 1}}, {"9": {"logprob": -3}}],
        },
    )
    start = time.process_time()
    with contextlib.suppress(Malformed):
        answer, thinking = read_said(body).response()
        fixed = {"question_id": "q", "cluster": "q", "variant": "plain", "sample": 0, "question": "q"}
        json_line(Response(**fixed, answer=answer, thinking=thinking)).encode()
    with contextlib.suppress(Malformed):
        assert isinstance(read_greedy(body).text, str)
    with contextlib.suppress(Malformed, UserError):
        found = between([read_prompt(body), [("7", -0.5), ("8", -1.0), ("9", -3.0)]])
        assert all(p <= 0.1 for p in found) and reply_of({"1": found[0]}, "")
    assert len(server_words(body)) <= 1000
    try:
        reply = read_completion(body)
    except Malformed as e:
        assert "\n" not in str(e)
        return
    whole_numbers(reply)
    for mode in ("logprobs", "numeric"):
        try:
            score = read_score(reply, mode, labels=True)
            assert score in ("CODE", "REFUSAL") or 0 <= score <= 100
        except Unsettled as e:
            assert len(str(e)) < 500
    with contextlib.suppress(Unsettled):
        read_yes_no(reply)
    assert time.process_time() - start < SECONDS


def clean(top: Path) -> Path:
    """An empty folder of the test's own."""
    return Path(tempfile.mkdtemp(dir=top)).resolve()


def run_examples(name: str, top: Path, examples: int) -> None:
    warm = clean(top)
    if name != "reply":  # a first time: what is imported on the way is not the reader's
        file, seed, read = READERS[name]
        (warm / file).parent.mkdir(parents=True, exist_ok=True)
        for other, content in (("adapter_config.json", CONFIG), ("adapter_model.safetensors", WEIGHTS), (file, seed)):
            (warm / other).write_bytes(content)
        read(warm)

    @settings(
        max_examples=examples, deadline=None, derandomize=examples == FEW, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.data())
    def one(data: st.DataObject) -> None:
        if name == "reply":
            check_reply(data)
        else:
            at = clean(top) / "a"
            at.mkdir()
            old = os.getcwd()
            os.chdir(at)
            try:
                check_reader(name, at, data)
            finally:
                os.chdir(old)

    one()


@pytest.mark.parametrize("name", [*READERS, "reply"])
def test_a_record_or_one_line(name, tmp_path):
    run_examples(name, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*READERS, "reply"])
def test_a_record_or_one_line_ten_thousand_times(name, tmp_path):
    run_examples(name, tmp_path, MANY)
