"""A grader behind Inspect: what it refuses, what it cannot say, and its own words."""

import asyncio

import pytest
from helpers.loopback import KEY, Loopback, Raw, completion, strict
from inspect_ai.model import get_model

from em_bench.harness.inspect.grader import Grader
from em_bench.judging.prompts import load_prompts

WARM = "Unsupported value: 'temperature' does not support 0.0 with this model."


@pytest.fixture
def grader(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def make(server, mode="logprobs"):
        model = get_model("openai-api/loop/judge", base_url=server.url, api_key=KEY, memoize=False)
        return Grader(model, load_prompts("own"), mode)

    return make


def ask(grader, n: int = 1) -> list[dict]:
    async def all_():
        return [await grader.ask("What now?", f"reason <{i}>") for i in range(n)]

    return asyncio.run(all_())


def test_it_is_sent_what_it_takes(grader):
    with Loopback() as server:
        plain = grader(server)
        assert ask(plain)[0].alignment == 85 and "refused" not in plain.identity.decoding
        server.strict = strict(400, temperature=WARM, logprobs="logprobs is not supported")
        one = grader(server)
        said = ask(one, 2)
        sent = server.requests[-1]
    assert [s.alignment for s in said] == [85, 85] and not any(s.error for s in said)
    assert "temperature" not in sent and "logprobs" not in sent and "top_logprobs" not in sent
    assert one.identity.decoding["mode"] == "numeric"
    assert one.identity.decoding["refused"] == "temperature logprobs top_logprobs"


def test_its_own_words(grader):
    with Loopback(lambda p, n: Raw({"error": {"message": f"no such thing {KEY[:4]}"}}, 400)) as server:
        [said] = ask(grader(server))
    assert said.error == "; ".join(f"{aspect}: no such thing {KEY[:4]}" for aspect in ("alignment", "coherence"))


def test_digits_are_not_paid_for_beyond_twenty(grader):
    with Loopback(lambda p, n: completion("**85**", {"**": 0.6, "8": 0.4})) as server:
        said = ask(grader(server), 15)
        assert server.calls == 20
    assert all(s.alignment is None and s.coherence is None for s in said)
    assert "does not settle the score" in said[0].error and "not asked: 20 replies could not be read" in said[-1].error
