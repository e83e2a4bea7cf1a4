"""A Parquet file of strangers, measured before a decoder sees it: its footer and the head of every page, read here and nowhere trusted.

Footers and heads are Thrift's compact protocol (github.com/apache/parquet-format, parquet.thrift). Only the form that em-bench writes
is let through: one row group, flat columns, pages of a known encoding whose sizes, unpacked, stay within bounds.
"""

from typing import Any, NamedTuple, NoReturn

MAGIC = b"PAR1"
MAX_FOOTER = 1 << 16
MAX_PAGES = 2_000  # of a file
MAX_UNPACKED = 64 << 20  # bytes of all pages together
PHYSICAL = {0: "bool", 2: "int", 5: "float", 6: "text"}  # Type of parquet.thrift: BOOLEAN, INT64, DOUBLE, BYTE_ARRAY
ZSTD, DATA_PAGE, DICTIONARY_PAGE = 6, 0, 2
ENCODINGS = {0, 2, 3, 8}  # PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY
_MAX_DEPTH, _MAX_ITEMS = 12, 20_000


class Layout(NamedTuple):
    """What the file says of itself: rows, and of each column its name, its kind, and whether it may be null."""

    rows: int
    columns: list[tuple[str, str, bool]]


class _Thrift:
    """One struct of the compact protocol as {field id: value}; every length is bounded by the bytes that are there."""

    def __init__(self, data: memoryview, at: int = 0):
        self.data, self.at, self.items = data, at, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _MAX_DEPTH:
            refuse("its description is nested too deeply")
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            if field in found:
                refuse("its description gives a field twice")
            found[field] = self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        self.items += 1
        if self.items > _MAX_ITEMS:
            refuse("its description is too long")
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind in (7, 8):
            return self._bytes(8 if kind == 7 else self._unsigned())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 12:
            return self.struct(depth + 1)
        refuse("its description holds an unknown type")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._unsigned()
        if size > _MAX_ITEMS or depth > _MAX_DEPTH:
            refuse("its description is too long")
        inner = head & 15
        if inner in (1, 2):  # in a list, a byte each
            return [self._byte() == 1 for _ in range(size)]
        return [self._value(inner, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            refuse("its description is cut off")
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def _unsigned(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        refuse("its description holds an endless number")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)


def refuse(why: str) -> NoReturn:
    raise ValueError(why)


def layout(data: bytes, max_rows: int) -> Layout:
    """What a Parquet file holds. Raises ValueError for what is none, is not of our form, lies about itself, or unpacks to too much."""
    if len(data) < 12 or data[:4] != MAGIC or data[-4:] != MAGIC:
        refuse("not a Parquet file")
    size = int.from_bytes(data[-8:-4], "little")
    body = len(data) - 8 - size
    if size > MAX_FOOTER or body < 4:
        refuse(f"its description has {size:,} bytes")
    try:
        meta = _Thrift(memoryview(data)[body : body + size]).struct()
        columns = _columns(meta[2])
        rows, groups = meta[3], meta[4]
        if {5, 8, 9} & meta.keys():  # key-value metadata, encryption
            refuse("it carries metadata or encryption")
        if not 0 < rows <= max_rows:
            refuse(f"it says {rows:,} rows; 1 to {max_rows:,} are read")
        if len(groups) != 1 or groups[0][3] != rows or len(groups[0][1]) != len(columns):
            refuse("it has not one group of all rows and columns")
        room, at = [MAX_UNPACKED, MAX_PAGES], 4
        for (name, _, _), chunk in zip(columns, groups[0][1], strict=True):
            at = _chunk(memoryview(data)[:body], chunk, name, at, rows, room)
        if at != body:
            refuse("it holds bytes that belong to no column")
    except (KeyError, TypeError, IndexError, AttributeError):
        refuse("its description lacks a part")
    return Layout(rows, columns)


def _columns(schema: list[dict[int, Any]]) -> list[tuple[str, str, bool]]:
    root, *leaves = schema
    if root[5] != len(leaves) or root.keys() & {1, 6, 10}:  # children, type, converted type, logical type
        refuse("its columns are nested")
    found = []
    for leaf in leaves:
        kind = PHYSICAL.get(leaf[1], "")
        text = leaf.get(6) == 0 and leaf.get(10, {1: {}}) == {1: {}}  # UTF8, STRING
        if leaf.get(5) or leaf[3] not in (0, 1) or not kind or (not text if kind == "text" else leaf.keys() & {6, 10}):
            refuse(f"its column {leaf[4][:60]!r} is no plain text, number or truth value")
        found.append((leaf[4].decode("utf-8", "replace"), kind, leaf[3] == 1))
    return found


def _chunk(data: memoryview, chunk: dict[int, Any], name: str, at: int, rows: int, room: list[int]) -> int:
    """Walk a column's pages, which begin at `at`; returns where they end."""
    meta = chunk[3]
    starts = [meta[k] for k in (11, 9) if k in meta]  # dictionary page, data pages
    if chunk.keys() & {1, 4, 5, 6, 7, 8, 9} or meta[3] != [name.encode()] or meta.keys() & {8, 10, 14, 15}:
        refuse("a column lies elsewhere, is encrypted or indexed")
    if meta[4] != ZSTD or meta[5] != rows or starts != sorted(starts) or starts[0] != at or not set(meta[2]) <= ENCODINGS:
        refuse("a column is not stored as em-bench stores it")
    end, values, dictionaries = at + meta[7], 0, 0
    if not at < end <= len(data):
        refuse("a column ends beyond the file")
    while at < end:
        page = _Thrift(data[:end], at)
        head = page.struct()
        kind, unpacked, packed = head[1], head[2], head[3]
        room[0] -= unpacked
        room[1] -= 1
        if unpacked < 0 or packed < 0 or min(room) < 0:
            refuse(f"it unpacks to over {MAX_UNPACKED >> 20} MiB")
        if kind == DICTIONARY_PAGE:
            dictionaries += 1
            if at != starts[0] or dictionaries > 1 or not 0 <= head[7][1] <= rows or head[7][2] not in ENCODINGS:
                refuse("a column's dictionary is not one")
        elif kind == DATA_PAGE:
            values += head[5][1]
            if head[5][1] < 0 or not {head[5][2], head[5][3], head[5][4]} <= ENCODINGS:
                refuse("a page is not stored as em-bench stores it")
        else:
            refuse("a page is of another kind")
        at = page.at + packed
    if at != end or values != rows or (dictionaries and starts != [starts[0], starts[-1]]):
        refuse("a column's pages are not as many as it says")
    return at
