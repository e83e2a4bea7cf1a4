"""A judge that misbehaves: every response ends in a verdict or unjudged, and nothing is paid for in vain."""

import email.utils
import gc
import json
import logging
import re
import time
import tracemalloc
from dataclasses import asdict

import pytest
from helpers.loopback import FINE, GOOD, ITEMS, KEY, Loopback, Raw, completion, error

from em_bench.errors import UserError

TRUNCATED = Raw(json.dumps(GOOD)[:60])


def slow(prompt, attempt):
    if attempt == 1:
        time.sleep(2)
    return GOOD


PASSING = {
    "429": lambda p, n: error(429) if n == 1 else GOOD,
    "429 and Retry-After": lambda p, n: error(429, Retry_After="0.05") if n <= 2 else GOOD,
    "429 and a date": lambda p, n: error(429, Retry_After=email.utils.formatdate(time.time(), usegmt=True)) if n == 1 else GOOD,
    "429 and nonsense": lambda p, n: error(429, Retry_After="soon") if n == 1 else GOOD,
    "500": lambda p, n: error(500) if n <= 3 else GOOD,
    "503 without JSON": lambda p, n: Raw(b"<html>down</html>", 503, Content_Type="text/html") if n == 1 else GOOD,
    "cut": lambda p, n: Raw(cut=True) if n <= 2 else GOOD,
    "cut in the body": lambda p, n: Raw(b'{"choices": [', Content_Length="5000", Connection="close") if n == 1 else GOOD,
    "truncated JSON": lambda p, n: TRUNCATED if n == 1 else GOOD,
    "not UTF-8": lambda p, n: Raw(b"\xff\xfe\x00") if n == 1 else GOOD,
    "another JSON": lambda p, n: Raw({"detail": "warming up"}) if n == 1 else GOOD,
    "deep JSON": lambda p, n: Raw("[" * 100_000) if n == 1 else GOOD,
    "slow": slow,
}
LASTING = {
    "500": (lambda p, n: error(500), r"HTTP 500: no \(4 attempts\)", 4),
    "429": (lambda p, n: error(429), r"HTTP 429: no \(4 attempts\)", 4),
    "cut": (lambda p, n: Raw(cut=True), "the connection fails or is cut", 4),
    "truncated JSON": (lambda p, n: TRUNCATED, "the reply is not JSON", 4),
    "empty body": (lambda p, n: Raw(b""), "the reply is not JSON", 4),
    "another JSON": (lambda p, n: Raw({"choices": []}), "not a chat completion", 4),
    "an error with status 200": (lambda p, n: Raw({"error": {"message": "no credit"}}), "the endpoint says: no credit", 4),
    "500 with a detail": (lambda p, n: Raw({"detail": "out of memory"}, 500), "HTTP 500: out of memory", 4),
    "500 with an error as text": (lambda p, n: Raw({"error": "model crashed"}, 500), "HTTP 500: model crashed", 4),
    "422 of FastAPI": (
        lambda p, n: Raw({"detail": [{"loc": ["body", "messages"], "msg": "too many", "type": "x"}]}, 422),
        "HTTP 422: body.messages: too many",
        1,
    ),
    "400 in words": (lambda p, n: Raw("bad request, says the proxy", 400), "HTTP 400: bad request, says the proxy", 1),
    "no logprobs": (lambda p, n: completion("85"), "no logprobs; judge with mode numeric", 1),
    "words": (lambda p, n: completion("eighty-five", {"e": 1.0}), "the reply 'eighty-five' is not a number", 1),
    "empty text": (lambda p, n: completion("", {"": 1.0}), "the reply '' is not a number", 1),
    "no text": (lambda p, n: Raw(json.dumps({"choices": [{"message": {"content": None}}]})), "no logprobs", 1),
    "a million characters": (lambda p, n: completion("x" * 10**6, {"x": 1.0}), r"'x{40}\.\.\.' is not a number", 1),
    "ten million characters": (lambda p, n: completion("8" * 10**7, {"8": 1.0}), "more than 1048576 bytes", 1),
    "too long a prompt": (
        lambda p, n: error(400, "maximum context length is 5 tokens, max_tokens 16"),
        "HTTP 400: maximum",
        1,
    ),
    "filtered": (lambda p, n: error(400, "content management policy"), "HTTP 400: content management policy", 1),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_waited_out(judge, name):
    with Loopback(PASSING[name]) as server:
        judging = judge(server, timeout_s=0.8) if name == "slow" else judge(server)
        assert judging.judge(ITEMS) == FINE
        calls = server.calls
        assert judge(server).judge(ITEMS) == FINE
        assert server.calls == calls


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_leaves_responses_unjudged(judge, name):
    answer, why, attempts = LASTING[name]
    with Loopback(answer) as server:
        found = judge(server).judge(ITEMS)
    assert len(found) == 4
    for j in found:
        assert (j.alignment, j.coherence, j.label) == (None, None, None)
        assert re.search(rf"^alignment: .*{why}.*; coherence: .*{why}", j.error)
        assert len(j.error) < 500
    assert set(server.asked.values()) == {attempts}


@pytest.mark.parametrize("name", ["no logprobs", "words", "empty text", "a million characters", "ten million characters"])
def test_useless_replies_are_paid_for_once(judge, name):
    with Loopback(LASTING[name][0]) as server:
        first = judge(server).judge(ITEMS)
        assert judge(server).judge(ITEMS) == first
        assert server.calls == 8


def test_failed_calls_are_asked_again_the_next_time(judge):
    with Loopback(lambda p, n: error(500)) as server:
        assert all(j.error for j in judge(server, attempts=2).judge(ITEMS))
        server.answer = lambda p, n: GOOD
        assert judge(server).judge(ITEMS) == FINE


def test_one_half_may_fail(judge):
    with Loopback(lambda p, n: error(500) if "makes sense" in p else GOOD) as server:
        found = judge(server).judge(ITEMS)
    assert [(j.alignment, j.coherence, j.error) for j in found] == [(85, None, "coherence: HTTP 500: no (4 attempts)")] * 4


def test_retry_after_is_honoured_by_all_calls(judge):
    times = []

    def answer(prompt, attempt):
        times.append(time.monotonic())
        return error(429, Retry_After="0.4") if len(times) == 1 else GOOD

    with Loopback(answer) as server:
        assert judge(server, concurrency=1).judge(ITEMS) == FINE
    assert times[1] - times[0] >= 0.4
    assert len(times) == 9


def test_refused_calls_do_not_count_against_the_cap(judge):
    with Loopback(lambda p, n: error(429) if n == 1 else GOOD) as server:
        assert judge(server, max_calls=8, concurrency=1).judge(ITEMS) == FINE
        assert server.calls == 16


@pytest.mark.parametrize("refusal", [error(400, "no"), error(500), Raw({"error": "no"})], ids=["400", "500", "200"])
def test_a_cap_is_not_called_reached_where_nothing_was_spent(judge, refusal):
    with Loopback(lambda p, n: refusal, delay=0.02) as server:
        found = judge(server, max_calls=2, concurrency=8, attempts=2).judge(ITEMS)
    assert len(server.asked) == 8 and not any("cap" in j.error for j in found)


def test_nobody_there_is_no_spending(judge):
    with Loopback() as server:
        pass
    found = judge(server, attempts=2, max_calls=1).judge(ITEMS)
    assert all("the connection fails" in j.error and "cap" not in j.error for j in found)


def test_cut_calls_count_against_the_cap(judge):
    with Loopback(lambda p, n: Raw(cut=True)) as server:
        found = judge(server, max_calls=3, concurrency=1).judge(ITEMS)
        assert server.calls == 3
    assert all("the cap of 3 calls" in j.error for j in found)


def test_every_fault_at_once(judge):
    """Sixty answers, each call with its own fault: nothing is lost, and only what lasts is unjudged."""
    passing, lasting = list(PASSING.values()), [LASTING[k][0] for k in ("words", "empty text", "filtered", "500")]

    def answer(prompt, attempt):
        i = int(re.search(r"<(\d+)>", prompt)[1])
        return lasting[i // 10 % 4](prompt, attempt) if i % 10 == 0 else passing[i % len(passing)](prompt, attempt)

    many = [(None, "Q", f"reason <{i}>") for i in range(60)]
    with Loopback(answer) as server:
        found = judge(server, concurrency=16).judge(many)
    assert [i for i, j in enumerate(found) if j.error] == [0, 10, 20, 30, 40, 50]
    assert all(j == FINE[0] for j in found if not j.error)


def test_the_key_is_nowhere(judge, tmp_path, caplog, capfd):
    """An endpoint that sends the key back, in errors and in replies."""
    caplog.set_level(logging.DEBUG)
    echo = [
        error(400, f"bad {KEY}"),
        completion(f"{KEY} 85", {KEY: 1.0}),
        error(500, KEY),
        GOOD,
        Raw(KEY),
        Raw(KEY, 502),
    ]
    many = [(None, "Q", f"reason <{i}>") for i in range(len(echo))]
    with Loopback(lambda p, n: echo[int(re.search(r"<(\d+)>", p)[1])]) as server:
        found = judge(server).judge(many)
        assert all(h["authorization"] == f"Bearer {KEY}" for h in server.headers)
        with pytest.raises(UserError) as e:
            server.answer = lambda p, n: error(401, f"Incorrect API key provided: {KEY}")
            judge(server, run=2).judge(many)
    said = [asdict(j) for j in found]
    assert said[0]["error"].startswith("alignment: HTTP 400: bad ***")
    assert said[3]["alignment"] == 85
    out = capfd.readouterr()
    cached = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert len(cached) > 1000 and len(caplog.records) > 10
    for text in (json.dumps(said), str(e.value), repr(judge(server).identity), caplog.text, out.out, out.err):
        assert KEY not in text
    assert KEY.encode() not in cached


def test_memory_stays_bounded(judge):
    """Sixty replies of a million characters pass through; what is held is that of a few."""
    huge = Raw(json.dumps(completion("x" * 10**6, {"x": 1.0})))
    many = [(None, "Q", f"reason <{i}>") for i in range(30)]
    with Loopback(lambda p, n: huge) as server:
        judge(server).judge(many[:1])  # what imports and caches take, once
        gc.collect()
        tracemalloc.start()
        judge(server, concurrency=4, run=2).judge(many)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert server.calls == 62
    assert peak < 30e6 and kept < 5e6
