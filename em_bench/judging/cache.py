"""Every reply that was paid for, kept in SQLite as soon as it arrives.

A reply is keyed by what determines it: the judge (model and decoding) and the whole text that it was shown. Only hashes
and the judge's reply are stored, never the question or the answer. A process killed at any moment loses at most the
replies still on their way. The write-ahead log needs all users of one cache on one host: jobs on several hosts that
share a file system name a cache each.
"""

import json
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from em_bench.errors import UserError
from em_bench.judging.reply import Reply

SCHEMA = 1
_REPLY, _DECODING = TypeAdapter(Reply), TypeAdapter(dict[str, object])


class ReplyCache:
    """A SQLite file of replies; a context manager. Raises UserError if the file is something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # safe against kill -9; a power cut may lose the last replies
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                raise UserError(f"{path}: judge cache of schema {version}, expected {SCHEMA}; name another file")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS reply (judge TEXT, item TEXT, reply TEXT NOT NULL, PRIMARY KEY (judge, item))"
            )
            self._db.execute("CREATE TABLE IF NOT EXISTS taken (judge TEXT PRIMARY KEY, decoding TEXT NOT NULL)")
            self._db.execute(f"PRAGMA user_version={SCHEMA}")
        except (sqlite3.Error, OSError) as e:
            raise UserError(f"{path}: not usable as a judge cache ({e}); delete it or name another file") from None

    def get(self, judge: str, item: str) -> Reply | None:
        """The reply of a judge (digest) on an item (digest), if it was ever paid for."""
        row = self._first("SELECT reply FROM reply WHERE judge = ? AND item = ?", judge, item)
        try:
            return _REPLY.validate_json(row[0], strict=True) if row else None
        except ValidationError:
            return None  # another program's row, or one that an earlier version kept and this one cannot read: it is asked again

    def knows(self, judge: str) -> bool:
        """Whether any reply of a judge (digest) is kept."""
        return self._first("SELECT 1 FROM reply WHERE judge = ? LIMIT 1", judge) is not None

    def put(self, judge: str, item: str, reply: Reply) -> None:
        """Keep a reply; committed on return. The first one stays if two processes asked the same. Raises UserError."""
        self._write("INSERT OR IGNORE INTO reply VALUES (?, ?, ?)", judge, item, json.dumps(reply))

    def taken(self, judge: str) -> dict[str, object] | None:
        """What a judge (digest of what it was meant to send) turned out to take, if it refused some of it."""
        row = self._first("SELECT decoding FROM taken WHERE judge = ?", judge)
        try:
            return _DECODING.validate_json(row[0]) if row else None
        except ValidationError:
            raise UserError(f"{self.path}: damaged; delete it or name another file") from None

    def put_taken(self, judge: str, decoding: dict[str, object]) -> None:
        """Keep what a judge takes: its next process is the same judge without asking."""
        self._write("INSERT OR REPLACE INTO taken VALUES (?, ?)", judge, json.dumps(decoding))

    def _first(self, statement: str, *values: str) -> tuple[Any, ...] | None:
        try:
            return self._db.execute(statement, values).fetchone()
        except sqlite3.Error as e:
            raise UserError(f"{self.path}: the judge cache cannot be read ({e}); delete it or name another file") from None

    def _write(self, statement: str, *values: str) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as e:
            raise UserError(f"{self.path}: the judge cache cannot be written ({e}); name another file") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._db.close()
