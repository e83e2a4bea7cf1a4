"""Fetching upstream files by pin: download, verify, cache; what does not verify is never cached."""

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from em_bench import assets
from em_bench.data.archive import read_member
from em_bench.data.conversations import parse_rows
from em_bench.data.pins import holder, load_pins, pin, terms_of
from em_bench.data.question_format import parse_questions
from em_bench.errors import UserError
from em_bench.files import atomic_file, cache_dir, sha256_file, write_text

TIMEOUT_S = (10.0, 30.0)  # to connect, and between two reads
ACCEPT = "EM_BENCH_ACCEPT_TERMS"

Status = Literal["verified", "recorded", "changed", "absent"]


def fetch(name: str, mirror: str | None = None, progress: bool = True, accept_terms: bool = False) -> Path:
    """The cached file of a pin; downloaded and verified first where it is not there.

    mirror: replaces every host (as EM_BENCH_MIRROR does): the file is read from MIRROR/repository/commit/path. Raises
    UserError, and leaves the cache as it was, for: an unknown name, terms not accepted, no network, no answer, an HTTP
    error, a download cut short, a wrong hash, wrong rows, a cache that cannot be written.
    """
    entry = pin(name)
    if entry.file:
        _require_terms(name, accept_terms)
        _verified(name, (_here(cached_path(name)),), str(cached_path(name)))
        return cached_path(name)
    if status(name) in ("verified", "recorded"):
        return cached_path(name)
    forms: tuple[bytes, ...]
    if held := entry.in_archive():
        archive, member = held
        forms = read_member(fetch(archive, mirror, progress, accept_terms), pin(archive).password or "", member)
        where = f"{archive}: {member}"
    else:
        _require_terms(name, accept_terms)
        base = mirror or os.environ.get("EM_BENCH_MIRROR") or entry.host or load_pins().host
        layout = base if "{path}" in base else base.rstrip("/") + "/{repository}/{commit}/{path}"
        url = layout.format(repository=entry.repository, commit=entry.commit, path=entry.path)
        forms, where = (_download(url, entry.bytes, progress),), _without_credentials(url)
    _store(name, _verified(name, forms, where), progress)
    return cached_path(name)


def cached_path(name: str) -> Path:
    """Where the file of a pin lies, or would lie: in the cache, unless it is a file that is here."""
    entry, at = pin(name), holder(name)
    if entry.file:
        return assets.path("baselines", entry.file)
    folder, held = cache_dir() / "upstream", entry.in_archive()
    *within, path = ("files", at.sha256 or "", "") if at.file else at.in_repository()
    return folder.joinpath(*within) / (Path(path).parent / "unpacked" / held[1] if held else path)


def recorded_sha256(name: str) -> str | None:
    """The hash recorded on the first verified fetch of a pin that states none."""
    try:
        return _record(name).read_text().split()[0]
    except (FileNotFoundError, NotADirectoryError):
        return None


def status(name: str) -> Status:
    """Whether the cached file has the pinned hash (verified), the recorded one (recorded), another, or is not there."""
    path, pinned, recorded = cached_path(name), pin(name).sha256, recorded_sha256(name)
    if not path.is_file():
        return "absent"
    if sha256_file(path) == (pinned or recorded):
        return "verified" if pinned else "recorded"
    return "changed"


def _here(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); mend `file` in baselines/pins.yaml") from None


def _record(name: str) -> Path:
    path = cached_path(name)
    return path.with_name(path.name + ".sha256")


def _require_terms(name: str, accepted: bool) -> None:
    terms = terms_of(name)
    if terms is None or accepted or terms[0] in os.environ.get(ACCEPT, "").split(","):
        return
    raise UserError(
        f"{name}: comes with terms of use ({terms[1].original}); `em-bench data fetch {name}` shows them; "
        f"to accept, add --accept-terms or set {ACCEPT}={terms[0]}"
    )


def _verified(name: str, forms: tuple[bytes, ...], where: str) -> bytes:
    """The first form with the pinned (or recorded) hash, after a check of its rows."""
    entry = pin(name)
    mend = "mend the file or its pin" if entry.file else "nothing was cached; check the mirror or try again"
    expected = entry.sha256 or recorded_sha256(name)
    hashes = [hashlib.sha256(data).hexdigest() for data in forms]
    if expected and expected not in hashes:
        source = "pinned" if entry.sha256 else "recorded"
        raise UserError(f"{where}: not the {source} file: sha256 {hashes[0][:12]}..., expected {expected[:12]}...; {mend}")
    data = forms[hashes.index(expected)] if expected else forms[0]
    found = hashlib.sha256(data).hexdigest()
    if entry.sha256_prefix and not found.startswith(entry.sha256_prefix):
        raise UserError(f"{where}: not the pinned file: sha256 {found[:12]}..., expected {entry.sha256_prefix}...; {mend}")
    if entry.kind != "archive":
        rows = count_rows(name, data, where)
        if rows != entry.rows:
            raise UserError(f"{where}: {rows} rows, expected {entry.rows}; {mend}")
    return data


def count_rows(name: str, data: bytes, where: str) -> int:
    """Rows or questions of a pin's file. Raises UserError where its schema is another."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(f"{where}: not UTF-8 at byte {e.start}; nothing was cached; check the mirror") from None
    parse: Callable = parse_rows if pin(name).kind == "training_set" else lambda t, w: parse_questions(t, name, w)
    return len(parse(text, where))


def _store(name: str, data: bytes, progress: bool) -> None:
    path = cached_path(name)
    first = pin(name).sha256 is None and recorded_sha256(name) is None
    try:
        with atomic_file(path, "wb") as f:
            f.write(data)
        if first:
            write_text(_record(name), f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")
    except OSError as e:
        raise UserError(f"{path}: the cache cannot be written ({e.strerror}); set EM_BENCH_CACHE to a folder that can") from None
    if first and progress:
        print(f"{name}: recorded sha256 {hashlib.sha256(data).hexdigest()} (first verified fetch)", file=sys.stderr)


def _download(url: str, expected_bytes: int | None, progress: bool) -> bytes:
    import requests
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    shown, got, answered = _without_credentials(url), bytearray(), False
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(markup=False, emoji=False, stderr=True)
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT_S) as reply:
            reply.raise_for_status()
            answered = True
            with Progress(*columns, console=console, transient=True, disable=not (progress and console.is_terminal)) as bar:
                task = bar.add_task(shown.rsplit("/", 1)[-1], total=expected_bytes)
                for chunk in reply.iter_content(1 << 18):
                    got += chunk
                    bar.update(task, completed=len(got))
    except requests.HTTPError as e:
        raise UserError(f"{shown}: HTTP {e.response.status_code} {e.response.reason}; check the pin or the mirror") from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
        raise UserError(f"{shown}: not an http or https address; give --mirror one") from None
    except requests.Timeout:
        raise UserError(f"{shown}: no answer within {TIMEOUT_S[1]:g} s; try again or give --mirror URL") from None
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as e:
        if "timed out" in str(e):
            what = f"no more data within {TIMEOUT_S[1]:g} s"
        else:
            what = "cut off before its end" if answered else "cannot be reached"
        raise UserError(f"{shown}: {what}; nothing was cached; check the network or give --mirror URL") from None
    except requests.RequestException as e:
        raise UserError(f"{shown}: cannot be fetched ({type(e).__name__}); check the network or give --mirror URL") from None
    if expected_bytes and len(got) < expected_bytes:
        raise UserError(f"{shown}: cut off after {len(got)} of {expected_bytes} bytes; nothing was cached; try again")
    return bytes(got)


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
