"""Answers kept as they come, so that a killed evaluation goes on where it was."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


class Kept:
    """What an evaluation that is not over has been answered: a file with a line an item, written batch by batch.

    `identity` is all that the answers depend on; what is there of another one is dropped. A key may come several times; its
    items are taken in the order in which they came, each once.
    """

    def __init__(self, path: Path, identity: str):
        self.path, self.identity = path, identity
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # what has no end was being written
        self._found: dict[str, list] = defaultdict(list)
        if lines[:1] == [identity.encode()]:
            for line in lines[1:]:
                key, item = json.loads(line)
                self._found[key].append(item)
            os.truncate(path, sum(len(line) + 1 for line in lines))
        else:
            path.unlink(missing_ok=True)
        self.at_start = sum(map(len, self._found.values()))

    def take(self, key: str):
        """The next item that was kept under `key` when the file was opened, or None."""
        return self._found[key].pop(0) if self._found.get(key) else None

    def add(self, items: Iterable[tuple[str, object]]) -> None:
        """Write (key, item) pairs through to the disk; the items are of JSON."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as f:
            if f.tell() == 0:
                f.write(self.identity + "\n")
            f.writelines(json.dumps(pair) + "\n" for pair in items)
            f.flush()
            os.fsync(f.fileno())
