"""Keys planted in the environment, in the judge's address, in its headers and in its replies: none is in any file or line of a whole run."""

import os
import subprocess
import sys

import pytest
from helpers.loopback import Loopback, Raw, completion, error, number
from helpers.secrets import KEYS, found_in

from em_bench.errors import UserError
from em_bench.judging.endpoint import Endpoint

PASSWORD, COOKIE = "planted-password-0005", "planted-cookie-0006"
ECHO = KEYS["OPENAI_API_KEY"]


def answer(prompt, attempt):
    """Every kind of reply, each with the key that the endpoint has seen; what is asked again is answered."""
    kinds = (
        number(85),
        completion(f"{ECHO} 85", {ECHO: 0.9}),
        error(400, f"bad {ECHO}"),
        Raw(ECHO, 400),
        Raw({"error": {"message": ECHO}}),
    )
    reply = kinds[len(prompt) % len(kinds)] if attempt == 1 else number(85)
    reply = reply if isinstance(reply, Raw) else Raw(reply)
    reply.headers = {**reply.headers, "Set-Cookie": COOKIE, "X-Echo": KEYS["OPENAI_API_KEY"]}
    return reply


def test_no_key_is_in_any_output_of_a_run(base, tmp_path):
    surroundings = os.environ | KEYS | {"NO_PROXY": "127.0.0.1"}
    with Loopback(answer) as server:
        command = [
            sys.executable, "-m", "em_bench.cli", "evaluate", "organism-qwen3", "--questions", "organism", "--variants", "plain",
            "--samples", "1", "--max-new-tokens", "8", "--judge", "openai:judge", "--mode", "logprobs", "--base-url", server.url,
            "--judge-cache", str(tmp_path / "judge.sqlite"), "--out", str(tmp_path / "out"),
        ]  # fmt: skip
        ended = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=300)
        calls = server.calls
    assert ended.returncode == 1, ended.stderr[-2000:]  # some answers are left unjudged
    assert calls > 20
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {"responses.jsonl", "verdicts.jsonl", "score.json", "judge.sqlite"} <= {p.name for p in files}
    everything = b"".join(p.read_bytes() for p in files) + (ended.stdout + ended.stderr).encode()
    assert b"bad ***" in everything  # what came back was read, and cleaned
    assert found_in(tmp_path, ended.stdout, ended.stderr, more=[COOKIE]) == []


@pytest.mark.parametrize(
    "address", [f"http://user:{PASSWORD}@127.0.0.1:9/v1", f"http://127.0.0.1:9/v1?key={PASSWORD}", f"http://{PASSWORD}@[/v1"]
)
def test_a_secret_in_an_address_is_refused_and_not_said(monkeypatch, address):
    monkeypatch.setenv("OPENAI_API_KEY", KEYS["OPENAI_API_KEY"])
    with pytest.raises(UserError) as e:
        Endpoint("judge", address, {})
    assert PASSWORD not in str(e.value)
