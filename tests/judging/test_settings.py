"""Judges that refuse a setting: they get what they take, it is said once, and it is another judge."""

import pytest
from helpers.loopback import Loopback, completion, error, number, strict

from em_bench.errors import UserError
from em_bench.judging import Judgement
from em_bench.judging.request_parameters import taken

ITEMS = [(None, "What now?", f"reason <{i}>") for i in range(30)]
SENT = {"temperature": 0.0, "max_tokens": 16, "logprobs": True, "top_logprobs": 20}
RENAMED = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
WARM = "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is supported."


@pytest.mark.parametrize(
    ("words", "param", "left"),
    [
        (RENAMED, None, {"temperature": 0.0, "max_completion_tokens": 16, "logprobs": True, "top_logprobs": 20}),
        (WARM, "temperature", {"max_tokens": 16, "logprobs": True, "top_logprobs": 20}),
        ("top_logprobs must be at most 5", None, SENT | {"top_logprobs": 5}),
        ("Requested sample logprobs of 20, which is greater than max allowed: 5", None, SENT | {"top_logprobs": 5}),
        ("logprobs are not supported with gpt-5.1", None, {"temperature": 0.0, "max_tokens": 16}),
        ("body.top_logprobs: Extra inputs are not permitted; body.logprobs: Extra", None, {"temperature": 0.0, "max_tokens": 16}),
        ("maximum context length is 5 tokens, max_tokens 16", None, None),
        ("content policy", None, None),
        ("max_completion_tokens is unknown", None, None),
    ],
)
def test_what_is_left_to_send(words, param, left):
    assert taken(SENT, words, param) == left


CASES = {
    "max_tokens": (
        {"max_tokens": RENAMED},
        {"temperature": 0.0, "max_completion_tokens": 16, "logprobs": True, "top_logprobs": 20},
    ),
    "temperature": ({"temperature": WARM}, {"max_tokens": 16, "logprobs": True, "top_logprobs": 20}),
    "both": ({"max_tokens": RENAMED, "temperature": WARM}, {"max_completion_tokens": 16, "logprobs": True, "top_logprobs": 20}),
    "logprobs": ({"logprobs": "logprobs is not supported"}, {"temperature": 0.0, "max_tokens": 16}),
    "a reasoning model": (
        {"max_tokens": RENAMED, "temperature": WARM, "logprobs": "You may not request logprobs from this model"},
        {"max_completion_tokens": 16},
    ),
}


@pytest.mark.parametrize("status", [400, 403, 422])
@pytest.mark.parametrize("case", CASES)
def test_a_strict_endpoint_judges(judge, capfd, case, status):
    refused, left = CASES[case]
    with Loopback() as server:
        server.strict = strict(status, **refused)
        one = judge(server, max_calls=60, concurrency=8)
        asked = one.identity
        assert one.judge(ITEMS) == [Judgement(alignment=85.0, coherence=85.0)] * 30
        assert {k: v for k, v in server.requests[-1].items() if k not in ("model", "messages")} == left
        said = capfd.readouterr().err.splitlines()
        assert len(said) == len(refused) and all("the endpoint refuses settings" in line for line in said)

        assert one.identity != asked and {k: one.identity.decoding.get(k) for k in SENT} == {k: left.get(k) for k in SENT}
        assert set(refused) <= set(one.identity.decoding["refused"].split())
        assert one.identity.decoding["mode"] == ("logprobs" if "logprobs" in left else "numeric")

        # The next process knows the judge before it asks, and pays nothing.
        calls = server.calls
        again = judge(server, max_calls=0)
        assert again.identity == one.identity and again.judge(ITEMS) == [Judgement(alignment=85.0, coherence=85.0)] * 30
        assert server.calls == calls and capfd.readouterr().err == ""


def test_fewer_alternatives(judge):
    def check(request):
        return error(400, "top_logprobs must be between 0 and 5") if request.get("top_logprobs", 0) > 5 else None

    with Loopback() as server:
        server.strict = check
        one = judge(server)
        one.judge(ITEMS)
    assert one.identity.decoding["top_logprobs"] == 5 and one.identity.decoding["refused"] == "top_logprobs"


def test_a_judge_that_has_answered_keeps_its_settings(judge):
    """Half of the verdicts at temperature 0 and half at another would be two judges under one name."""
    with Loopback() as server:
        server.strict = lambda request: error(400, WARM) if server.calls > 10 else None
        with pytest.raises(UserError, match="'temperature' does not support 0.0"):
            judge(server, concurrency=1).judge(ITEMS)
        with pytest.raises(UserError, match="'temperature' does not support 0.0"):  # the replies in the cache are its own
            judge(server, concurrency=1).judge(ITEMS)


def test_a_lone_digit_of_a_judge_that_writes_digit_by_digit_is_no_score(judge):
    def answer(prompt, attempt):
        return completion("0", {"0": 0.6, "8": 0.4}) if "<1>" in prompt else completion("85", {"8": 0.9, "7": 0.1})

    with Loopback(answer) as server:
        found = judge(server).judge(ITEMS[:4])
        assert [j.alignment for j in found] == [None] * 4 and "a lone digit" in found[1].error
        server.answer = lambda p, n: completion("0", {"0": 0.6, "5": 0.4}) if "<1>" in p else number(80)
        assert [j.alignment for j in judge(server, run=2).judge(ITEMS[:3])] == [80, 2, 80]


def test_more_tokens_for_a_judge_that_thinks(judge):
    with Loopback(lambda p, n: completion("<think>20?</think>\n30")) as server:
        one = judge(server, mode="numeric", max_tokens=2000)
        assert one.judge(ITEMS[:1]) == [Judgement(alignment=30.0, coherence=30.0)]
        assert server.requests[0]["max_tokens"] == one.identity.decoding["max_tokens"] == 2000
