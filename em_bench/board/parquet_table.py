"""Rows of flat records as a Parquet file, and back: what is read is exactly the columns that are asked for, each value within its bounds."""

import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from em_bench.board.parquet_layout import layout
from em_bench.errors import UserError
from em_bench.files import LARGEST, LARGEST_WHOLE, atomic_file, read_bytes
from em_bench.line import MOST_TEXT, one_line
from em_bench.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FILE = 8 << 20
MAX_ROWS = 200_000
MAX_TEXT = 64 << 20  # characters of all rows together, were they all written out: repeated ones take no room before that
KINDS: dict[type, str] = {str: "text", int: "int", float: "float", bool: "bool"}


class Column(NamedTuple):
    """One column: its name, its kind (text, int, float, bool), and whether it may be null."""

    name: str
    kind: str
    null: bool = False


@cache
def _fields(model: type[Record]) -> list[tuple[str, type, bool]]:
    """Name, type within Annotated and Optional, and whether None is allowed, of each field."""
    return [(name, *_plain(field.annotation)) for name, field in model.model_fields.items()]


def _plain(annotation: Any) -> tuple[type, bool]:
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return str, False
    if get_origin(annotation) in (Union, UnionType):
        (inner,) = [a for a in get_args(annotation) if a is not NoneType]
        return _plain(inner)[0], True
    return annotation, False


def columns_of(model: type[Record], prefix: str = "", null: bool = False) -> list[Column]:
    """The columns of a record in the order of its fields; a record within it gives one column a field, `outer_inner`."""
    found: list[Column] = []
    for name, kind, may in _fields(model):
        if issubclass(kind, Record):
            found += columns_of(kind, f"{prefix}{name}_", True)
        else:
            found.append(Column(prefix + name, KINDS[kind], null or may))
    return found


def flat(model: type[Record], value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A record's JSON value as a row of `columns_of` its model."""
    row: dict[str, Any] = {}
    for name, kind, _ in _fields(model):
        if issubclass(kind, Record):
            row |= flat(kind, value.get(name) or {}, f"{prefix}{name}_")
        else:
            row[prefix + name] = value.get(name)
    return row


def nested(model: type[Record], row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The same, back: a record whose columns are all null is None."""
    value: dict[str, Any] = {}
    for name, kind, _ in _fields(model):
        if issubclass(kind, Record):
            inner = nested(kind, row, f"{prefix}{name}_")
            value[name] = inner if any(v is not None for v in inner.values()) else None
        else:
            value[name] = row.get(prefix + name)
    return value


def write_table(path: Path, columns: Sequence[Column], rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as one Parquet file, atomically, the same bytes for the same rows and version of pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema([pa.field(c.name, types[c.kind], c.null) for c in columns])
    table = pa.Table.from_pylist(list(rows), schema)
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        row_group_size=max(len(table), 1),
        compression="zstd",
        compression_level=19,
        write_statistics=False,
        store_schema=False,
    )
    with atomic_file(path, "wb") as f:
        f.write(out.getvalue())


class Table:
    """A Parquet file, read and checked; its rows are made when asked for."""

    def __init__(self, path: Path, columns: Sequence[Column], limit: int = MAX_FILE):
        """Raises UserError in a line for whatever is not exactly these columns with values within bounds."""
        self.path = path
        self._made: dict[str, list[str]] = {}
        data = read_bytes(path, limit=limit)
        try:
            self._table = _decoded(data, columns)
        except ValueError as e:
            raise UserError(f"{path}: {one_line(str(e), 200)}; `em-bench submit run` writes it") from None

    def __len__(self) -> int:
        return self._table.num_rows

    def groups(self, key: str) -> dict[str, tuple[int, int]]:
        """Value of a text column -> where its rows begin and end. Raises UserError where they do not stand together."""
        indices = self._table.column(key).combine_chunks().indices.to_numpy()
        starts = [0, *(int(i) + 1 for i in (indices[1:] != indices[:-1]).nonzero()[0]), len(indices)]
        found: dict[str, tuple[int, int]] = {}
        for start, end in itertools.pairwise(starts):
            value = self._texts(key)[int(indices[start])]
            if value in found:
                raise UserError(f"{self.path}: the rows of {one_line(value, 100)} do not stand together")
            found[value] = (start, end)
        return found

    def _texts(self, name: str) -> list[str]:
        """The different texts of a column, made once: rows share them."""
        if name not in self._made:
            self._made[name] = self._table.column(name).combine_chunks().dictionary.to_pylist()
        return self._made[name]

    def rows(self, span: tuple[int, int], names: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
        """Rows as plain values, of these columns or of all; None where the file lacks the column."""
        names = list(names or self._table.column_names)
        return (dict(zip(names, row, strict=True)) for row in zip(*(self._values(name, *span) for name in names), strict=True))

    def _values(self, name: str, start: int, end: int) -> list[Any]:
        if name not in self._table.column_names:
            return [None] * (end - start)
        part = self._table.column(name).slice(start, end - start).combine_chunks()
        if not hasattr(part, "dictionary"):
            return part.to_pylist()
        texts = self._texts(name)
        return [None if i is None else texts[i] for i in part.indices.to_pylist()]


def _decoded(data: bytes, columns: Sequence[Column]) -> "pa.Table":
    said = layout(data, MAX_ROWS)
    there = {name for name, _, _ in said.columns}
    columns = [c for c in columns if not c.null or c.name in there]  # one that is new since the file was made is null
    if said.columns != columns:
        theirs = ", ".join(f"{name} ({kind}{', may be null' * null})" for name, kind, null in said.columns)
        raise ValueError(f"other columns than a file of this name has: {theirs}")
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [c.name for c in columns if c.kind == "text"]
    try:
        table = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts, memory_map=False).read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"cannot be unpacked ({str(e).splitlines()[0] if str(e) else type(e).__name__})") from None
    if table.num_rows != said.rows:
        raise ValueError("holds another number of rows than it says")
    room = MAX_TEXT
    for column in columns:
        values = table.column(column.name)
        if not column.null and values.null_count:
            raise ValueError(f"column {column.name}: null where a value must be")
        room -= _checked(column, values)
        if room < 0:
            raise ValueError(f"over {MAX_TEXT >> 20} Mi characters of text")
    return table.combine_chunks()


def _checked(column: Column, values: "pa.ChunkedArray") -> int:
    """Bytes of text. Raises ValueError for a value beyond its bounds."""
    import pyarrow.compute as pc

    if column.kind == "text":
        total = 0
        for chunk in values.chunks:
            sizes = pc.binary_length(chunk.dictionary)
            if len(sizes) and (pc.max(sizes).as_py() or 0) > 4 * MOST_TEXT:
                raise ValueError(f"column {column.name}: a text of over {MOST_TEXT:,} characters")
            total += pc.sum(sizes.cast("int64").take(chunk.indices)).as_py() or 0
        return total
    if column.kind == "int" and not _within(pc.min_max(values).as_py(), LARGEST_WHOLE):
        raise ValueError(f"column {column.name}: a number that is not between -2**53 and 2**53")
    if column.kind == "float":
        if not (pc.all(pc.is_finite(values)).as_py() in (True, None) and _within(pc.min_max(values).as_py(), LARGEST)):
            raise ValueError(f"column {column.name}: a number that is not between -1e30 and 1e30")
        if any(math.copysign(1, v) < 0 for v in values.filter(pc.equal(values, 0.0)).to_pylist() if v is not None):
            raise ValueError(f"column {column.name}: -0.0 is written 0.0")
    return 0


def _within(found: dict[str, Any], most: float) -> bool:
    return all(v is None or abs(v) <= most for v in found.values())
