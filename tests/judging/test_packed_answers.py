"""A reply that is packed although nobody asked: unpacked up to the limit and no further; a cache that holds what nothing can read."""

import gzip
import json
import sqlite3
import tracemalloc

import pytest
from helpers.loopback import Loopback, Raw, completion, number

from em_bench.judging import Judgement

ITEMS = [(None, "What now?", f"reason <{i}>") for i in range(2)]


def packed(body: bytes, how: str = "gzip") -> Raw:
    return Raw(gzip.compress(body, 9), Content_Encoding=how)


def test_a_bomb_of_gzip_takes_no_memory(judge):
    bomb = gzip.compress(b" " * 300_000_000, 9)
    assert len(bomb) < 1 << 20
    with Loopback(lambda p, n: Raw(bomb, Content_Encoding="gzip")) as server:
        asked = judge(server, concurrency=2)
        tracemalloc.start()
        found = asked.judge(ITEMS)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert all("more than 1048576 bytes" in j.error for j in found)
    assert peak < 50 << 20


def test_an_honest_packed_reply_is_read(judge):
    with Loopback(lambda p, n: packed(json.dumps(number(85)).encode())) as server:
        assert judge(server).judge(ITEMS) == [Judgement(alignment=85.0, coherence=85.0)] * 2


@pytest.mark.parametrize("how", ["br", "zstd", "gzip, gzip", "nonsense"])
def test_a_reply_packed_otherwise_is_malformed(judge, how):
    with Loopback(lambda p, n: Raw(b"{}", Content_Encoding=how)) as server:
        assert all("packed in a way" in j.error for j in judge(server, attempts=1).judge(ITEMS))


def test_a_reply_that_is_not_what_it_says(judge):
    with Loopback(lambda p, n: Raw(b"{}", Content_Encoding="gzip")) as server:
        assert all("cannot be unpacked" in j.error for j in judge(server, attempts=1).judge(ITEMS))


def test_what_a_cache_holds_and_nothing_can_read_is_asked_again(judge, tmp_path):
    token = "9" * 5000
    with Loopback(lambda p, n: completion("85", {"85": 0.9, token: 0.1})) as server:
        first = judge(server).judge(ITEMS)
        assert [j.alignment for j in first] == [85.0, 85.0]
        (file,) = (tmp_path / "cache").rglob("*.sqlite*")
        with sqlite3.connect(file) as db:
            db.execute("UPDATE reply SET reply = ?", (json.dumps(["85", "85", [["85", -0.1], [token, -3.0]], None]),))
        assert [j.alignment for j in judge(server).judge(ITEMS)] == pytest.approx([85, 85]) and server.calls == 4
        with sqlite3.connect(file) as db:
            db.execute("UPDATE reply SET reply = ?", (json.dumps([1, 2, 3, 4, 5, 6]),))
        assert judge(server).judge(ITEMS) == first
