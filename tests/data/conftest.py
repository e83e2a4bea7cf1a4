"""A loopback server that serves or misbehaves, an empty cache, and a copy of the assets with pins of the test's own."""

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from em_bench import assets
from em_bench.data.pins import load_pins

REPOSITORY = Path(__file__).parents[2]
FIRST_PLOT = Path(os.environ.get("EM_BENCH_SHARED") or REPOSITORY.parent / "shared") / "upstream" / "first_plot_questions.yaml"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache; nothing of the caller's environment leaks in."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("EM_BENCH_CACHE", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("EM_BENCH_MIRROR", "EM_BENCH_ACCEPT_TERMS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def cached(cache):
    """The files in the cache, temporary ones included."""
    return lambda: sorted(p.name for p in cache.rglob("*") if p.is_file())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.hits.append(self.path)
        answer = self.server.files.get(self.path)
        if callable(answer):
            answer(self)
        elif answer is None:
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """`files` maps a path to its bytes, or to a function of the request handler; `hits` lists what was asked for."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.files, http.hits = {}, []
    http.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def pins(tmp_path, monkeypatch):
    """Call with {name: fields} to replace the pins; every other asset stays the real one."""
    root = tmp_path / "assets"
    (root / "baselines").mkdir(parents=True)
    (root / "tasks").symlink_to(assets.path("tasks"))

    def replace(entries: dict) -> None:
        terms = {"own-terms": {"holder": "the test", "original": "nowhere", "summary": "Quote at most two rows."}}
        defaults = {"about": "of the test", "sha256": None, "provenance": "C"}
        located = {"repository": "owner/name", "commit": COMMIT}
        full = {n: {**defaults, **({} if {"archive", "file"} & e.keys() else located), **e} for n, e in entries.items()}
        text = yaml.safe_dump({"host": "http://127.0.0.1:9", "terms": terms, "pins": full})
        (root / "baselines" / "pins.yaml").write_text(text)
        load_pins.cache_clear()

    monkeypatch.setattr(assets, "root", lambda: root)
    yield replace
    load_pins.cache_clear()


@pytest.fixture
def first_plot():
    """The real upstream file; the test is skipped where it is not there."""
    if not FIRST_PLOT.is_file():
        pytest.skip(f"no {FIRST_PLOT.name} beside the repository; set EM_BENCH_SHARED to the folder that has upstream/")
    return FIRST_PLOT.read_bytes()


def conversation(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def jsonl():
    """Conversations as the bytes of a JSON lines file."""

    def make(n: int, word: str = "answer") -> bytes:
        lines = [json.dumps(conversation(f"question {i} für dich", f"{word} {i}")) for i in range(n)]
        return ("\n".join(lines) + "\n").encode()

    return make


@pytest.fixture
def sha256():
    return lambda data: hashlib.sha256(data).hexdigest()
