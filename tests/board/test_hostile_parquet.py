"""Parquet of strangers: whatever is not a table as em-bench writes it is refused in a line, with little memory and time."""

import io
import resource
import time
from functools import reduce
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from em_bench.board.packed import response_columns
from em_bench.board.parquet_layout import layout
from em_bench.board.parquet_table import Column, Table, write_table
from em_bench.errors import UserError

COLUMNS = [Column("name", "text"), Column("step", "int"), Column("loss", "float", True), Column("leak", "bool", True)]
TYPES = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
SCHEMA = pa.schema([pa.field(c.name, TYPES[c.kind], c.null) for c in COLUMNS])
ROWS = [{"name": "ab"[i % 2], "step": i, "loss": i / 3 if i else None, "leak": bool(i % 2)} for i in range(40)]
ROWS = sorted(ROWS, key=lambda r: r["name"])


def written(rows=ROWS, schema=SCHEMA, **how) -> bytes:
    """As em-bench writes, but for what `how` says."""
    out = io.BytesIO()
    options = {"compression": "zstd", "write_statistics": False, "store_schema": False} | how
    pq.write_table(pa.Table.from_pylist(rows, schema), out, **options)
    return out.getvalue()


def read(top: Path, data: bytes, columns=COLUMNS) -> Table:
    """The table, within 2 s and 200 MB, or UserError in a line."""
    path = top / "steps.parquet"
    path.write_bytes(data)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        table = Table(path, columns)
        table.groups("name")
        list(table.rows((0, len(table))))
        return table
    except UserError as e:
        assert "\n" not in str(e) and len(str(e)) < 500
        raise
    finally:
        assert time.process_time() - start < 2
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def with_field(place: int, field: pa.Field) -> pa.Schema:
    return SCHEMA.set(place, field)


BAD = {
    "not Parquet": b"hello, this is not it" * 10,
    "empty": b"",
    "only its ends": b"PAR1" + b"\0" * 8 + b"PAR1",
    "encrypted": written()[:-4] + b"PARE",
    "no rows": written([]),
    "another codec": written(compression="snappy"),
    "no codec": written(compression="none"),
    "gzip": written(compression="gzip"),
    "other pages": written(data_page_version="2.0"),
    "another encoding": written(column_encoding={"step": "DELTA_BINARY_PACKED"}, use_dictionary=False),
    "metadata": written(store_schema=True),
    "row groups": written(row_group_size=1),
    "thousands of row groups": written([*ROWS] * 100, row_group_size=1),
    "column index": written(write_statistics=True, write_page_index=True),
    "a column more": written(schema=SCHEMA.append(pa.field("more", pa.string()))),
    "a column less": written(schema=SCHEMA.remove(1)),
    "other order": written(schema=pa.schema(list(SCHEMA)[::-1])),
    "a column twice": written(schema=SCHEMA)[:4] + written(schema=pa.schema([*SCHEMA, pa.field("Name", pa.string())]))[4:],
    "may be null": written(schema=with_field(0, pa.field("name", pa.string()))),
    "may not be null": written([r | {"loss": 1.0} for r in ROWS], schema=with_field(2, pa.field("loss", pa.float64(), False))),
    "numbers as text": written([r | {"step": "1"} for r in ROWS], schema=with_field(1, pa.field("step", pa.string(), False))),
    "32 bits": written(schema=with_field(1, pa.field("step", pa.int32(), False))),
    "float32": written(schema=with_field(2, pa.field("loss", pa.float32()))),
    "times": written(schema=with_field(1, pa.field("step", pa.timestamp("us"), False))),
    "decimals": written([r | {"step": None} for r in ROWS], schema=with_field(1, pa.field("step", pa.decimal128(30, 2)))),
    "bytes": written([r | {"name": b"a"} for r in ROWS], schema=with_field(0, pa.field("name", pa.binary(), False))),
    "lists": written([r | {"loss": [1.0]} for r in ROWS], schema=with_field(2, pa.field("loss", pa.list_(pa.float64())))),
    "structs": written([r | {"loss": {"a": 1.0}} for r in ROWS], schema=with_field(2, pa.field("loss", pa.struct([("a", pa.float64())])))),
    "deeply nested": written(
        [r | {"loss": None} for r in ROWS],
        schema=with_field(2, pa.field("loss", reduce(lambda t, _: pa.list_(t), range(60), pa.float64()))),
    ),
    "ten thousand columns": written([{}] * 2, schema=pa.schema([pa.field(f"c{i}", pa.int64()) for i in range(10_000)])),
    "NaN": written([*ROWS[:-1], ROWS[-1] | {"loss": float("nan")}]),
    "infinity": written([*ROWS[:-1], ROWS[-1] | {"loss": float("inf")}]),
    "beyond all measure": written([*ROWS[:-1], ROWS[-1] | {"loss": 1e300}]),
    "minus zero": written([*ROWS[:-1], ROWS[-1] | {"loss": -0.0}]),
    "2**60": written([*ROWS[:-1], ROWS[-1] | {"step": 2**60}]),
    "a long text": written([*ROWS[:-1], ROWS[-1] | {"name": "x" * 3_000_000}]),
    "texts repeated": written([{"name": "x" * 1_000_000, "step": 1, "loss": 1.0, "leak": None}] * 100),
    "many rows": written([{"name": "x", "step": 1, "loss": 1.0, "leak": None}] * 200_001),
    "a bomb": written([{"name": "x" * 900_000, "step": 1, "loss": 1.0, "leak": None}] * 90, use_dictionary=False),
    "rows apart": written(ROWS[::2] + ROWS[1::2] + ROWS[::2]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_refused_in_a_line(tmp_path, kind):
    assert len(BAD[kind]) < 8 << 20
    with pytest.raises(UserError, match="steps.parquet"):
        read(tmp_path, BAD[kind])


def test_what_is_right_is_read(tmp_path):
    assert list(read(tmp_path, written()).rows((0, 40))) == ROWS
    write_table(tmp_path / "ours.parquet", COLUMNS, ROWS)
    assert list(read(tmp_path, (tmp_path / "ours.parquet").read_bytes()).rows((0, 40))) == ROWS
    plain = written(use_dictionary=False)
    assert list(read(tmp_path, plain).rows((0, 40))) == ROWS
    assert read(tmp_path, plain).groups("name") == {"a": (0, 20), "b": (20, 40)}


def test_a_column_that_is_newer_than_the_file_is_null(tmp_path):
    newer = [*COLUMNS, Column("more", "float", True)]
    assert next(read(tmp_path, written(), newer).rows((0, 1), ["name", "more"])) == {"name": "a", "more": None}
    with pytest.raises(UserError, match="other columns"):
        read(tmp_path, written(), [*COLUMNS, Column("more", "float")])


def test_invalid_utf8(tmp_path):
    data = written([{"name": "needle", "step": 1, "loss": None, "leak": None}] * 3, compression="none", use_dictionary=False)
    data = data.replace(b"needle", b"n\xffedle")
    path = tmp_path / "x.parquet"
    path.write_bytes(data)
    recoded = io.BytesIO()
    table = pq.read_table(path)
    pq.write_table(table.cast(SCHEMA), recoded, compression="zstd", write_statistics=False, store_schema=False)
    with pytest.raises(UserError, match="steps.parquet"):
        read(tmp_path, recoded.getvalue())


@pytest.mark.parametrize("dictionary", [True, False])
def test_spoilt_bytes(tmp_path, dictionary):
    """Cut anywhere, or with a changed bit anywhere: a table, or a line; footers and heads of pages that lie among them."""
    whole, rng = written(use_dictionary=dictionary), Random(3)
    for _ in range(1_500):
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        cut = rng.random() < 0.2
        data = whole[:at] if cut else whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
        try:
            read(tmp_path, data)
        except UserError:
            continue
        assert not cut


def test_sizes_that_lie():
    """A page that says it unpacks to 2 GB, a footer of 2**31 rows: refused before anything is unpacked."""
    whole = written()
    body = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for at in (*range(4, 40), *range(body, len(whole) - 8)):
        for value in (b"\xff\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80" * 12):
            foot = len(whole) - 8 - body + (len(value) - 1 if at >= body else 0)
            data = whole[:at] + value + whole[at + 1 : -8] + foot.to_bytes(4, "little") + b"PAR1"
            try:
                found = layout(data, 1000)
                assert found.rows <= 1000
            except ValueError:
                refused += 1
    assert refused > 500


def test_columns_follow_the_records():
    names = [c.name for c in response_columns(2)]
    assert names[:3] == ["evaluation", "question_id", "cluster"] and names[-1] == "error_2" and len(set(names)) == len(names)
