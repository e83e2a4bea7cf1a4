"""Files that are whole or absent: atomic writes, content hashes, JSON lines with a header, the cache directory."""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from em_bench.errors import UserError
from em_bench.line import one_line

H = TypeVar("H", bound=BaseModel)
M = TypeVar("M", bound=BaseModel)
MAX_BYTES = 256 * 2**20  # of a file that is read whole, where nothing smaller is said
LARGEST, LARGEST_WHOLE = 1e30, 2**53  # numbers beyond are no measurement: their squares and sums would overflow


def cache_dir() -> Path:
    """Where built bases, fetched sources and judge verdicts are kept: $EM_BENCH_CACHE, else ~/.cache/em_bench."""
    base = os.environ.get("EM_BENCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "em_bench")
    return Path(base).expanduser()


def canonical_json(value: object) -> str:
    """JSON text that is equal exactly when the values are: sorted keys, no spaces, no NaN."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """sha256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def open_regular(path: Path) -> BufferedReader:
    """A file opened for reading that is one: a pipe or a device would be read for ever. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(fd, "rb")


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a regular file's bytes. Raises OSError."""
    with open_regular(path) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_tree(folder: Path, pattern: str = "*") -> str:
    """sha256 (hex) over the names and bytes of a folder's files, in the order of their relative names."""
    h = hashlib.sha256()
    for p in sorted(q for q in folder.rglob(pattern) if q.is_file()):
        h.update(f"{p.relative_to(folder).as_posix()}\0{sha256_file(p)}\n".encode())
    return h.hexdigest()


@contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator:
    """Open a temporary neighbour of `path` for writing and rename it into place only when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, tmp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, mode, encoding=None if "b" in mode else "utf-8") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.chmod(tmp, 0o644)
        os.replace(tmp, path)
    except BaseException:
        Path(tmp).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour folder to fill; rename it to `path` when the block succeeds, remove it otherwise.

    If somebody else completed `path` meanwhile, theirs stays and ours is dropped: same hash, same content.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield tmp
        os.chmod(tmp, 0o755)
        try:
            os.rename(tmp, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def disk_full(error: OSError, where: Path | str = "what is written") -> UserError | None:
    """The one line for a file system without room; None for other errors."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return UserError(f"{error.filename or where}: the disk is full; make room and give the same command again")


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Make a full disk under `folder` a UserError."""
    try:
        yield
    except OSError as e:
        if full := disk_full(e, folder):
            raise full from None
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as f:
        f.write(text)


def _positive(value: Any) -> Any:
    """A JSON value whose -0.0 are 0.0: one number, one text."""
    if isinstance(value, dict):
        return {k: _positive(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_positive(v) for v in value]
    return 0.0 if value == 0 and isinstance(value, float) else value


def write_record(path: Path, record: BaseModel, *, compact: bool = False) -> None:
    """Write one record as JSON, atomically: indented for readers, or compact where it is large."""
    layout = {"separators": (",", ":")} if compact else {"indent": 1}
    write_text(path, json.dumps(_positive(record.model_dump(mode="json")), **layout, ensure_ascii=False, allow_nan=False) + "\n")


def read_bytes(path: Path, *, where: str | None = None, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `limit`. Raises UserError with `where` (default: the path) and what is wrong."""
    where = where or str(path)
    try:
        with open_regular(path) as f:
            data = f.read(limit + 1)
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except (OSError, ValueError) as e:  # a name with a null in it
        raise UserError(f"{where}: cannot be read ({getattr(e, 'strerror', None) or e})") from None
    if len(data) > limit:
        raise UserError(f"{where}: over {limit >> 10:,} KiB; is it the file that was meant?")
    return data


def read_text(path: Path, *, where: str | None = None, limit: int = MAX_BYTES) -> str:
    """A UTF-8 text without its byte-order mark. Raises UserError with `where` (default: the path) and what is wrong."""
    where = where or str(path)
    try:
        return read_bytes(path, where=where, limit=limit).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as e:
        raise UserError(f"{where}: not UTF-8 text at byte {e.start}; save it as UTF-8") from None


def strict_json(text: str) -> Any:
    """A JSON text of strangers as plain values. Raises ValueError for a key that stands twice, NaN, and a number beyond all measure."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _whole(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else LARGEST_WHOLE + 1
    if abs(value) > LARGEST_WHOLE or digits == "-0":
        raise ValueError(f"the number {digits[:20]} is not between -2**53 and 2**53")
    return value


def _real(digits: str) -> float:
    value = float(digits)
    if abs(value) > LARGEST or len(digits) > 100:
        raise ValueError(f"the number {digits[:20]} is not between -1e30 and 1e30")
    if value == 0 and digits[0] == "-":
        raise ValueError("-0.0 is written 0.0")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_int=_whole, parse_float=_real, parse_constant=_no_constant)


def parse_record(text: str, model: type[M], where: str) -> M:
    """One record from JSON text, read strictly: a number is no text. Raises UserError that begins with `where`."""
    try:
        strict_json(text)
        return model.model_validate_json(text, strict=True)
    except ValidationError as e:
        raise UserError(f"{where}: {first_problem(e)}") from None
    except ValueError as e:
        raise UserError(f"{where}: not the JSON that em-bench writes: {str(e)[:200]}") from None


def read_record(path: Path, model: type[M]) -> M:
    """Read one record. Raises UserError naming the file and the field."""
    return parse_record(read_text(Path(path)), model, str(path))


def json_line(record: BaseModel) -> str:
    """The one line that a record has in a file of JSON lines, its end included."""
    return json.dumps(_positive(record.model_dump(mode="json")), ensure_ascii=False, allow_nan=False) + "\n"


def sha256_lines(lines: Iterable[str]) -> str:
    """sha256 (hex) of the file of these lines."""
    h = hashlib.sha256()
    for line in lines:
        h.update(line.encode())
    return h.hexdigest()


def write_jsonl(path: Path, header: BaseModel, rows: Iterable[BaseModel]) -> None:
    """Write a header line and one line a row, atomically."""
    with atomic_file(path) as f:
        for record in (header, *rows):
            f.write(json_line(record))


def read_jsonl(path: Path, header: type[H], row: type[M]) -> tuple[H, list[M]]:
    """Read what `write_jsonl` wrote. Raises UserError naming the file, the line and the field."""
    text = read_text(Path(path))
    if not text:
        raise UserError(f"{path}: empty; the first line must be a {header.__name__}")
    head, out = None, []
    # Not splitlines: answers may hold U+2028 and other characters that it takes for the end of a line.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        where = f"{path}:{number}"
        if number == 1:
            head = parse_record(line, header, where)
        else:
            out.append(parse_record(line, row, where))
    assert head is not None  # a text that is not empty has a first line
    return head, out


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error as `field.path: message`."""
    e = error.errors(include_url=False)[0]
    field = one_line(".".join(str(p) for p in e["loc"]), 200)
    # Our own sentence names its field where pydantic does not; what pydantic quotes is a stranger's.
    message = "not a mapping" if e["type"] == "dict_type" else one_line(e["msg"].removeprefix("Value error, "))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{field}: {message}{more}" if field else f"{message}{more}"
