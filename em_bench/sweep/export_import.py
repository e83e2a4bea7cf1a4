"""Runs and evaluations from one machine to another: a zip whose manifest names every file by size and sha256.

Bases stay where they are. What arrives is hostile until proven otherwise: nothing is written outside a temporary folder before
every byte is as the manifest says and every hash chain and number holds, and nothing that is there already is replaced.
"""

import json
import lzma
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from pydantic import Field

from em_bench.errors import UserError
from em_bench.evaluation_folder import CELL, CHAIN, EVALUATIONS, MARGIN_FILES, MARGIN_SCORE, SCORE, EvaluationFolder
from em_bench.files import atomic_file, disk_full, open_regular, parse_record, sha256_file
from em_bench.line import Line, identifier, one_line
from em_bench.machine import utc_now
from em_bench.records import Record, Sha256
from em_bench.run_folder import ADAPTER, CHECKPOINTS, CONFIG, LOG, RECORD, RUNS, WEIGHTS, WHOLE
from em_bench.sweep.import_checks import verify_arrived
from em_bench.verify.withheld import publishable

MANIFEST = "manifest.json"
MAX_MANIFEST = 64 * 2**20
CHUNK = 2**20
MAX_RATIO = 200  # of text to its packed form; honest logs reach 30
MAX_FILES = 200_000
PACKED = {".json", ".jsonl"}  # weights do not get smaller
_RUN, _EVALUATION = WHOLE, (*CHAIN, *MARGIN_FILES, CELL)
_OF_RUN = re.compile(
    rf"{re.escape(RECORD)}|{re.escape(LOG)}|({ADAPTER}|{CHECKPOINTS}/[0-9]{{1,12}})/({re.escape(WEIGHTS)}|{re.escape(CONFIG)}|README\.md)"
)


def _is_place(name: str) -> bool:
    """Whether a run or an evaluation has a file of this path: known names, in a folder that every system can hold."""
    top, _, rest = name.partition("/")
    folder, _, file = rest.partition("/")
    try:
        identifier(folder)
    except ValueError:
        return False
    return file in _EVALUATION if top == EVALUATIONS else top == RUNS and _OF_RUN.fullmatch(file) is not None


class FileEntry(Record):
    """One file of an archive."""

    size: int = Field(ge=0, le=2**40)
    sha256: Sha256


class ArchiveManifest(Record):
    """manifest.json."""

    schema_version: Literal["em_bench.archive/1"] = "em_bench.archive/1"
    files: dict[str, FileEntry] = Field(max_length=MAX_FILES)
    created: Line


class Imported(NamedTuple):
    """One run or evaluation of an archive, and what became of it."""

    name: str
    outcome: Literal["new", "there already", "differs"]


def export(
    paths: Iterable[Path], to: Path, progress: Callable[[str], None] = lambda name: None, *, for_others: bool = False
) -> int:
    """Write the runs and evaluations in `paths` (work folders, or single ones) to an archive; returns how many there are.

    for_others: texts of questions that may not be republished go as hashes. Raises UserError for a folder that holds none, and
    for two different ones of the same name.
    """
    with TemporaryDirectory(prefix="em-bench-export-") as scratch:
        folders = dict(f for path in paths for f in _folders(path))
        if for_others:
            folders |= {name: _for_others(folder, Path(scratch)) for name, folder in folders.items()}
        return _write(folders, to, progress)


def _for_others(folder: Path, scratch: Path) -> Path:
    at = EvaluationFolder(folder)
    if not at.responses_file.exists() or (made := publishable(at, scratch).path) == folder:
        return folder
    for file in (p for p in folder.iterdir() if p.name in (*MARGIN_FILES, CELL)):
        shutil.copyfile(file, made / file.name)
    return made


def _write(folders: dict[str, Path], to: Path, progress: Callable[[str], None]) -> int:
    files = {f"{name}/{p.relative_to(folder).as_posix()}": p for name, folder in folders.items() for p in _files(name, folder)}
    if odd := [name for name in files if not _is_place(name)]:
        raise UserError(f"{odd[0]}: a file's name has characters that an archive does not take; rename the dataset or recipe")
    listed = {}
    with atomic_file(to, "wb") as out, zipfile.ZipFile(out, "w", allowZip64=True) as archive:
        for name, path in sorted(files.items()):
            progress(name)
            packed = zipfile.ZIP_DEFLATED if path.suffix in PACKED else zipfile.ZIP_STORED
            archive.write(path, name, packed)
            listed[name] = FileEntry(size=path.stat().st_size, sha256=sha256_file(path))
        manifest = ArchiveManifest(files=listed, created=utc_now())
        archive.writestr(MANIFEST, json.dumps(manifest.model_dump(mode="json"), indent=1), zipfile.ZIP_DEFLATED)
    return len(folders)


def import_archive(path: Path, work: Path, progress: Callable[[str], None] = lambda name: None) -> list[Imported]:
    """Take what an archive holds into WORK/runs and WORK/evaluations; returns what became of each.

    Runs are merged by their hash: one that is there already stays as it is, also where the archive's differs. Raises
    UserError, and leaves nothing behind, for an archive that is not whole, not ours, or fails a check.
    """
    work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".import-", dir=work) as scratch:
        top = Path(scratch)
        _unpack(path, top, progress)
        names = sorted({"/".join(p.relative_to(top).parts[:2]) for p in top.rglob("*") if p.is_file()})
        for name in names:
            progress(f"verifying {name}")
            verify_arrived(path, name, top)
        done = []
        for name in names:
            progress(name)
            done.append(Imported(name, _take(top / name, work / name)))
    return done


def _folders(path: Path) -> Iterator[tuple[str, Path]]:
    path = path.resolve()
    found = [(RUNS, p.parent) for p in (path / RECORD, *path.glob(f"{RUNS}/*/{RECORD}")) if p.is_file()]
    for score in (SCORE, MARGIN_SCORE):
        found += [(EVALUATIONS, p.parent) for p in (path / score, *path.glob(f"{EVALUATIONS}/*/{score}")) if p.is_file()]
    if not found:
        raise UserError(f"{path}: no run and no evaluation in it; name a work folder, a run folder or an evaluation's")
    for kind, folder in sorted(set(found)):
        yield f"{kind}/{folder.name}", folder


def _files(name: str, folder: Path) -> list[Path]:
    patterns = _RUN if name.startswith(f"{RUNS}/") else _EVALUATION
    return [p for pattern in patterns for p in sorted(folder.glob(pattern)) if p.is_file()]


def _unpack(path: Path, top: Path, progress: Callable[[str], None]) -> None:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            manifest = _manifest(path, archive, top)
            for name, entry in sorted(manifest.files.items()):
                progress(name)
                _unpack_file(path, archive, name, entry, top)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as e:
        raise disk_full(e, top.parent) or UserError(f"{path}: cannot be read or unpacked ({e.strerror or e})") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        struct.error,
        lzma.LZMAError,
    ) as e:
        raise UserError(f"{path}: not a whole archive of em-bench export: {one_line(str(e), 200) or type(e).__name__}") from None


def _manifest(path: Path, archive: zipfile.ZipFile, top: Path) -> ArchiveManifest:
    names = archive.namelist()
    if MANIFEST not in names or archive.getinfo(MANIFEST).file_size > MAX_MANIFEST:
        raise UserError(f"{path}: not an archive of em-bench export: no {MANIFEST}, or one that is too large")
    with archive.open(MANIFEST) as f:
        text = f.read(MAX_MANIFEST + 1)
    try:
        manifest = parse_record(text.decode("utf-8"), ArchiveManifest, f"{path}: {MANIFEST}")
    except UnicodeDecodeError:
        raise UserError(f"{path}: {MANIFEST}: not UTF-8 text") from None
    if odd := [n for n in manifest.files if not _is_place(n)]:
        raise UserError(f"{path}: {MANIFEST}: {one_line(odd[0], 100)!r} is no place for a run or an evaluation")
    folded = [n.casefold() for n in manifest.files]
    if len(set(folded)) != len(folded) or sorted(names) != sorted([*manifest.files, MANIFEST]):
        raise UserError(f"{path}: its files are not those that {MANIFEST} names, each once")
    for info in archive.infolist():
        if info.file_size > MAX_RATIO * max(info.compress_size, 1) + CHUNK:
            raise UserError(f"{path}: {info.filename}: {info.compress_size:,} bytes that unpack to {info.file_size:,} are no log")
    free, wanted = shutil.disk_usage(top).free, sum(e.size for e in manifest.files.values())
    if wanted > free:
        raise UserError(
            f"{path}: holds {wanted / 1e9:.1f} GB and the disk of {top.parent} has {free / 1e9:.1f} GB left; make room"
        )
    return manifest


def _unpack_file(path: Path, archive: zipfile.ZipFile, name: str, entry: FileEntry, top: Path) -> None:
    to = top.joinpath(*PurePosixPath(name).parts)
    to.parent.mkdir(parents=True, exist_ok=True)
    left = entry.size
    with archive.open(name) as f, open(to, "xb") as out:  # a link in the archive becomes a plain file with its target's name
        while chunk := f.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            out.write(chunk)
    if left or sha256_file(to) != entry.sha256:
        raise UserError(f"{path}: {name}: not the file that {MANIFEST} names")


def _take(new: Path, place: Path) -> Literal["new", "there already", "differs"]:
    """Move a folder to its place, or say how it compares with what is there."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        new.rename(place)
        return "new"
    ours = {p.relative_to(place): p for p in place.rglob("*") if p.is_file()}
    same = all(p.relative_to(new) in ours and _alike(p, ours[p.relative_to(new)]) for p in new.rglob("*") if p.is_file())
    return "there already" if same else "differs"


def _alike(a: Path, b: Path) -> bool:
    return a.stat().st_size == b.stat().st_size and sha256_file(a) == sha256_file(b)
