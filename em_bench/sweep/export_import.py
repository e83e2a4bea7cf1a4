"""Runs and evaluations from one machine to another: a zip whose manifest names every file by size and sha256.

Bases stay where they are. What arrives is hostile until proven otherwise: nothing is written outside a temporary folder before
every byte is as the manifest says and every hash chain and number holds, and nothing that is there already is replaced.
"""

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from em_bench.errors import UserError
from em_bench.evaluation_folder import CELL, CHAIN, EVALUATIONS, SCORE, EvaluationFolder
from em_bench.files import atomic_file, disk_full, first_problem, sha256_file
from em_bench.machine import utc_now
from em_bench.records import Record, Sha256
from em_bench.run_folder import RECORD, RUNS, WHOLE, RunFolder
from em_bench.verify.chain import verify_evaluation, verify_run

MANIFEST = "manifest.json"
MAX_MANIFEST = 64 * 2**20
CHUNK = 2**20
PACKED = {".json", ".jsonl"}  # weights do not get smaller
_PATH = re.compile(rf"({RUNS}|{EVALUATIONS})/[\w][\w.+-]*(/[\w][\w.+-]*){{1,3}}")
_RUN, _EVALUATION = WHOLE, (*CHAIN, CELL)


class FileEntry(Record):
    """One file of an archive."""

    size: int = Field(ge=0)
    sha256: Sha256


class ArchiveManifest(Record):
    """manifest.json."""

    schema_version: Literal["em_bench.archive/1"] = "em_bench.archive/1"
    files: dict[str, FileEntry]
    created: str


class Imported(NamedTuple):
    """One run or evaluation of an archive, and what became of it."""

    name: str
    outcome: Literal["new", "there already", "differs"]


def export(paths: Iterable[Path], to: Path, progress: Callable[[str], None] = lambda name: None) -> int:
    """Write the runs and evaluations in `paths` (work folders, or single ones) to an archive; returns how many there are.

    Raises UserError for a folder that holds none, and for two different ones of the same name.
    """
    folders = dict(f for path in paths for f in _folders(path))
    files = {f"{name}/{p.relative_to(folder).as_posix()}": p for name, folder in folders.items() for p in _files(name, folder)}
    if odd := [name for name in files if not _PATH.fullmatch(name)]:
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
            _verify(path, name, top)
        done = []
        for name in names:
            progress(name)
            done.append(Imported(name, _take(top / name, work / name)))
    return done


def _folders(path: Path) -> Iterator[tuple[str, Path]]:
    path = path.resolve()
    found = [(RUNS, p.parent) for p in (path / RECORD, *path.glob(f"{RUNS}/*/{RECORD}")) if p.is_file()]
    found += [(EVALUATIONS, p.parent) for p in (path / SCORE, *path.glob(f"{EVALUATIONS}/*/{SCORE}")) if p.is_file()]
    if not found:
        raise UserError(f"{path}: no run and no evaluation in it; name a work folder, a run folder or an evaluation's")
    for kind, folder in sorted(found):
        yield f"{kind}/{folder.name}", folder


def _files(name: str, folder: Path) -> list[Path]:
    patterns = _RUN if name.startswith(f"{RUNS}/") else _EVALUATION
    return [p for pattern in patterns for p in sorted(folder.glob(pattern)) if p.is_file()]


def _unpack(path: Path, top: Path, progress: Callable[[str], None]) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(path, archive, top)
            for name, entry in sorted(manifest.files.items()):
                progress(name)
                _unpack_file(path, archive, name, entry, top)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as e:
        raise disk_full(e, top.parent) or UserError(f"{path}: cannot be read or unpacked ({e.strerror or e})") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        raise UserError(
            f"{path}: not a whole archive of em-bench export: {str(e).splitlines()[0] if str(e) else type(e).__name__}"
        ) from None


def _manifest(path: Path, archive: zipfile.ZipFile, top: Path) -> ArchiveManifest:
    names = archive.namelist()
    if MANIFEST not in names or archive.getinfo(MANIFEST).file_size > MAX_MANIFEST:
        raise UserError(f"{path}: not an archive of em-bench export: no {MANIFEST}, or one that is too large")
    with archive.open(MANIFEST) as f:
        text = f.read(MAX_MANIFEST + 1)
    try:
        manifest = ArchiveManifest.model_validate_json(text)
    except ValidationError as e:
        raise UserError(f"{path}: {MANIFEST}: {first_problem(e)}") from None
    if odd := [n for n in manifest.files if not _PATH.fullmatch(n)]:
        raise UserError(f"{path}: {MANIFEST}: {odd[0]!r} is no place for a run or an evaluation")
    folded = [n.casefold() for n in manifest.files]
    if len(set(folded)) != len(folded) or sorted(names) != sorted([*manifest.files, MANIFEST]):
        raise UserError(f"{path}: its files are not those that {MANIFEST} names, each once")
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


def _verify(path: Path, name: str, top: Path) -> None:
    folder = top / name
    try:
        if name.startswith(f"{RUNS}/"):
            checks = verify_run(folder)
            if RunFolder(folder).record().run_id != folder.name:
                raise UserError(f"{RECORD} is of another run")
        else:
            checks = verify_evaluation(folder)
            _check_links(folder, top)
    except UserError as e:
        raise UserError(f"{path}: {name}: {str(e).replace(str(top) + '/', '')}") from None
    if failed := [c for c in checks if not c.passed]:
        raise UserError(f"{path}: {name}: {failed[0].id}: {failed[0].sentence}: {failed[0].detail.replace(str(top) + '/', '')}")


def _check_links(folder: Path, top: Path) -> None:
    """An evaluation's cell is of its responses, and its responses of the adapter of their run, where the run came too."""
    at = EvaluationFolder(folder)
    header, _ = at.responses()
    if at.cell_file.exists():
        cell = at.cell()
        if (cell.responses_sha256, cell.run_id) != (sha256_file(at.responses_file), header.run_id):
            raise UserError(f"{CELL} is of other responses")
    if header.run_id and (its := RunFolder(top / RUNS / header.run_id)).complete:
        run = its.record()
        if header.adapter_sha256 != (run.adapter_sha256 if header.step is None else run.checkpoints.get(header.step)):
            raise UserError("its responses are not of an adapter of their run")


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
