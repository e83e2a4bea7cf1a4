"""An endpoint that no call can get over is given up at once; one that dies loses nothing."""

import pytest
from helpers.loopback import FINE, GOOD, ITEMS, Loopback, Raw, completion, error

from em_bench.errors import UserError

CONFIGURATION = {
    "wrong key": (error(401, "Incorrect API key"), "HTTP 401: Incorrect API key; check OPENAI_API_KEY"),
    "no access": (error(403), "HTTP 403: no; check OPENAI_API_KEY"),
    "no such model": (error(404, "The model does not exist"), "HTTP 404.*does not exist; check the model's name"),
    "redirect": (Raw(b"", 307, Location="http://127.0.0.1:9/v1/chat/completions"), "HTTP 307; check the model's name"),
    "no credit": (
        Raw({"error": {"message": "quota", "code": "insufficient_quota"}}, 429),
        "HTTP 429.*when there is credit",
    ),
    "payment": (error(402), "HTTP 402.*when there is credit"),
    "parameter": (error(400, "Unsupported parameter: 'max_completion_tokens'"), "another model"),
    "a day's wait": (error(429, Retry_After="86400"), "asks to wait 86400 s; replies so far are kept"),
}


@pytest.mark.parametrize("name", CONFIGURATION)
def test_what_no_call_can_get_over_stops_at_once(judge, name):
    answer, why = CONFIGURATION[name]
    many = [(None, "Q", f"reason <{i}>") for i in range(200)]
    with Loopback(lambda p, n: answer) as server, pytest.raises(UserError, match=why) as e:
        judge(server, concurrency=8).judge(many)
    assert "\n" not in str(e.value) and "judge judge at 127.0.0.1: " in str(e.value)
    assert server.calls <= 8


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (error(500), "HTTP 500: no, 20 calls in a row; replies so far are kept"),
        (error(400, "no"), "it rejected the first 20 calls"),
        (completion("85"), "20 replies cannot be read: the endpoint gives no logprobs; judge with mode numeric"),
        (
            completion("**85**", {"**": 0.6, "8": 0.4}),
            "20 replies cannot be read: .* does not settle .*; use mode numeric, or another",
        ),
        (completion("<think> is it", {"<think>": 1.0}), "20 replies cannot be read: .*thinks first and is cut off"),
    ],
    ids=["dead", "rejects", "no logprobs", "digits", "thinks"],
)
def test_an_endpoint_that_never_helps_is_given_up(judge, answer, why):
    many = [(None, "Q", f"reason <{i}>") for i in range(300)]
    with Loopback(lambda p, n: answer) as server, pytest.raises(UserError, match=why):
        judge(server, concurrency=4, attempts=1).judge(many)
    assert server.calls < 40


def test_many_failures_that_are_not_in_a_row_stop_nothing(judge):
    many = [(None, "Q", f"reason <{i}>") for i in range(30)]
    with Loopback(lambda p, n: error(500) if "makes sense" in p else GOOD) as server:
        found = judge(server, attempts=1, concurrency=1).judge(many)
    assert [(j.alignment, j.coherence) for j in found] == [(85.0, None)] * 30


def test_filtered_answers_do_not_make_a_known_endpoint_suspicious(judge):
    """Thirty calls are rejected; the endpoint answered once, in this run or in an earlier one."""
    many = [(None, "Q", f"reason <{i}>") for i in range(16)]
    with Loopback(lambda p, n: GOOD if "<0>" in p else error(400, "content policy")) as server:
        for _ in range(2):
            found = judge(server, concurrency=1).judge(many)
            assert found[0] == FINE[0] and all("content policy" in j.error for j in found[1:])
        assert server.calls == 32 + 30


def test_an_endpoint_that_dies_loses_nothing(judge):
    many = [(None, "Q", f"reason <{i}>") for i in range(60)]
    paid, later = set(), []

    def dying(prompt, attempt):
        if len(paid) >= 50:
            return error(500)
        paid.add(prompt)
        return GOOD

    def revived(prompt, attempt):
        later.append(prompt)
        return GOOD

    with Loopback(dying) as server:
        with pytest.raises(UserError, match="in a row"):
            judge(server, attempts=1, concurrency=2).judge(many)
        server.answer = revived
        assert judge(server).judge(many) == [FINE[0]] * 60
    assert len(paid) in (50, 51)  # two calls at once
    assert len(later) == 120 - len(paid) and not paid & set(later)


def test_nobody_there(judge):
    with Loopback() as server:
        pass
    found = judge(server, attempts=2).judge(ITEMS)
    assert all("the connection fails or is cut (2 attempts)" in j.error for j in found)
