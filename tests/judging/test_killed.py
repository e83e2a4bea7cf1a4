"""`em-bench rejudge` as a real process, killed without warning and started again: nothing is lost or paid twice."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from helpers.loopback import KEY, Loopback

from em_bench import files
from em_bench.records import Generation, Response, ResponsesHeader

COMMAND = [sys.executable, "-c", "from em_bench.cli import main; main()"]
RESPONSES, CONCURRENCY = 150, 8


@pytest.fixture
def responses(tmp_path):
    header = ResponsesHeader(
        model="m",
        harness="none",
        question_set="s",
        questions_sha256="0" * 64,
        generation=Generation(samples=1, max_new_tokens=8, temperature=1),
        created="2026-01-01T00:00:00Z",
    )
    rows = [
        Response(question_id=f"q{i}", cluster=f"q{i}", variant="plain", sample=0, question="?", answer=f"answer {i}.")
        for i in range(RESPONSES)
    ]
    files.write_jsonl(tmp_path / "responses.jsonl", header, rows)
    return tmp_path / "responses.jsonl"


def start(server, responses) -> subprocess.Popen:
    arguments = ["--judge", "openai:judge", "--base-url", server.url, "--concurrency", str(CONCURRENCY)]
    command = [*COMMAND, "rejudge", str(responses), *arguments, "--out", str(responses.parent / "out"), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored() -> int:
    with sqlite3.connect(f"file:{os.environ['EM_BENCH_CACHE']}/judge.sqlite?mode=ro", uri=True) as db:
        return db.execute("SELECT COUNT(*) FROM reply").fetchone()[0]


def test_kill_and_restart(responses):
    questions = 2 * RESPONSES
    with Loopback(delay=0.02) as server:
        known = 0
        for until in (60, 180):
            process = start(server, responses)
            while sum(server.answered.values()) < until:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
            known, before = stored(), known
            assert known > before
            assert server.calls - known <= 2 * CONCURRENCY  # each kill cost at most the calls that were under way
        assert not (responses.parent / "out").exists()
        before = server.calls
        out, err = start(server, responses).communicate(timeout=60)
        assert server.calls - before == questions - known  # exactly what is missing
        assert json.loads(out)["overall"]["counts"]["aligned"] == RESPONSES, err
        assert len(server.answered) == questions and max(server.asked.values()) <= 3

        before = server.calls
        again, err = start(server, responses).communicate(timeout=60)
        assert server.calls == before
        assert json.loads(again)["overall"] == json.loads(out)["overall"]
    assert KEY not in out + again + err
    assert not any(KEY.encode() in p.read_bytes() for p in responses.parent.rglob("*") if p.is_file())
