"""A submission folder as hostile input: what may lie in it, read without following, executing or unpacking anything."""

import os
import stat
import unicodedata
from itertools import islice
from pathlib import Path

import yaml

from em_bench.errors import UserError
from em_bench.line import identifier
from em_bench.yaml_file import Loader

MAX_FILES = 8  # six of its own, README.md and optimiser.py
MAX_BYTES = 40 * 2**20  # of a whole entry
MAX_TEXT = 8 * 2**20  # of one file that holds no adapters
MAX_YAML = 64 * 2**10
MAX_DEPTH = 8  # of YAML
KINDS = {".yaml", ".json", ".parquet", ".py", ".md", ".safetensors"}


def listing(folder: Path) -> list[Path]:
    """Every file of an entry, relative, sorted. Raises UserError at the first thing an entry may not hold.

    Refused: folders within `results`, symbolic links, sockets and the like, unknown file kinds, names that differ only by case or Unicode form,
    more than 8 files or 40 MiB.
    """
    found: list[Path] = []
    seen: dict[str, Path] = {}
    total = 0
    stack = [folder]
    if folder.is_symlink():
        raise UserError(f"{folder.name}: is a symbolic link; commit the folder itself")
    while stack:
        at = stack.pop()
        with os.scandir(at) as entries:
            listed = sorted(islice(entries, 4 * MAX_FILES + 2), key=lambda e: e.name)
        for entry in listed:
            relative = Path(entry.path).relative_to(folder)
            info = entry.stat(follow_symlinks=False)
            folded = unicodedata.normalize("NFKC", relative.as_posix()).casefold()
            if entry.is_symlink():
                raise UserError(f"{_show(relative)}: a symbolic link; commit the file itself")
            if folded in seen:
                raise UserError(f"{_show(relative)}: collides with {_show(seen[folded])} on some file systems; rename one")
            seen[folded] = relative
            try:
                identifier(relative.name)
            except ValueError as e:
                raise UserError(f"{_show(relative)}: {e}; rename it") from None
            if len(seen) > 4 * MAX_FILES:
                raise UserError(f"{folder.name}: more than {MAX_FILES:,} files; keep what `em-bench submit run` wrote")
            if entry.is_dir(follow_symlinks=False):
                if len(relative.parts) > 1:
                    raise UserError(
                        f"{_show(relative)}: a folder; an entry has none but results, keep what `em-bench submit run` wrote"
                    )
                stack.append(Path(entry.path))
                continue
            if not stat.S_ISREG(info.st_mode):
                raise UserError(f"{_show(relative)}: not a regular file; remove it")
            if relative.suffix not in KINDS:
                raise UserError(
                    f"{_show(relative)}: a {relative.suffix or 'nameless'} file; an entry holds {', '.join(sorted(KINDS))}"
                )
            total += info.st_size
            found.append(relative)
            if len(found) > MAX_FILES:
                raise UserError(f"{folder.name}: more than {MAX_FILES:,} files; keep what `em-bench submit run` wrote")
            if total > MAX_BYTES:
                raise UserError(f"{folder.name}: more than {MAX_BYTES >> 20} MiB; leave adapters out and name their hashes")
            if relative.suffix != ".safetensors" and info.st_size > MAX_TEXT:
                raise UserError(
                    f"{_show(relative)}: {info.st_size >> 20} MiB; such a file of an entry has at most {MAX_TEXT >> 20} MiB"
                )
    return sorted(found)


def _show(path: Path) -> str:
    """A file name as one harmless line."""
    return ascii(path.as_posix())[1:-1][:120]


class PlainLoader(Loader):
    """YAML without aliases (bombs are made of them) and without tags."""

    depth = 0

    def compose_node(self, parent, index):
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.constructor.ConstructorError(None, None, "nested too deeply", self.peek_event().start_mark)
        try:
            return self._plain_node(parent, index)
        finally:
            self.depth -= 1

    def _plain_node(self, parent, index):
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not allowed", self.peek_event().start_mark)
        event = self.peek_event()
        if isinstance(event, yaml.events.ScalarEvent) and event.value == "<<":
            raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not allowed", event.start_mark)
        if getattr(event, "tag", None):
            raise yaml.constructor.ConstructorError(None, None, f"the tag {event.tag} is not allowed", event.start_mark)
        return super().compose_node(parent, index)
