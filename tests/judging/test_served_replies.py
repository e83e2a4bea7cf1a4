"""Whole replies at a server that speaks as vLLM does: the probabilities are those of one plain pass, and nothing is tokenised here."""

import json

import pytest
import torch
from helpers.loopback import Loopback, Raw, error
from helpers.tiny_judge import model, tiny_tokenizer

from em_bench.errors import UserError
from em_bench.harness.served_canary import read_greedy
from em_bench.judging import JudgeOptions, make_judge
from em_bench.judging.cache import ReplyCache
from em_bench.judging.reply import FLOOR, REPLIES, Malformed
from em_bench.judging.served_replies import between, read_prompt

ITEM = (None, "What now?", "Be kind.")


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


class Vllm:
    """What vLLM's server answers to a chat with `prompt_logprobs`, for a planted reply or a tiny model."""

    def __init__(self, tokenizer, score):
        self.tokenizer, self.score, self.seen = tokenizer, score, []

    def __call__(self, request):
        assert request["prompt_logprobs"] == 0 and request["max_tokens"] == 1 and request["add_generation_prompt"] is False
        messages = request["messages"]
        self.seen.append(messages[1]["content"])
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        given = [None] + [
            {str(t): {"logprob": p, "rank": 1, "decoded_token": ""}}
            for t, p in zip(ids[1:], self.score(ids, messages), strict=True)
        ]
        return {"choices": [{"message": {"content": "x"}}], "prompt_logprobs": given}


def served(answer, tmp_path, **options):
    server = Loopback()
    server.strict = answer
    judge = make_judge(
        "openai:judge,mode=replies",
        JudgeOptions(
            **{"base_url": server.url, "cache": tmp_path / "c.sqlite", "progress": False, "attempts": 2, "backoff_s": 0.01}
            | options
        ),
    )
    return server, judge


def test_each_reply_is_asked_once_and_kept(tokenizer, tmp_path):
    server, judge = served(Vllm(tokenizer, lambda ids, messages: [-1.0] * (len(ids) - 1)), tmp_path)
    with server:
        [said] = judge.judge([ITEM])
        assert judge.judge([ITEM, ITEM]) == [said, said]
        assert server.calls == 2 * len(REPLIES)  # two prompts
    assert judge.identity.decoding == {"mode": "replies", "endpoint": "local", "run": 1, "labels": "likeliest"}


def test_every_reply_has_the_probability_of_one_plain_pass(tokenizer, tmp_path):
    """By hand, from the passes that the server made: the reply's own tokens, and the end of turn behind them."""
    tiny, truth = model("llama", len(tokenizer)), {}

    def score(ids, messages):
        with torch.no_grad():
            log_p = torch.log_softmax(tiny(torch.tensor([ids])).logits[0].double(), -1)
        out = [float(log_p[i - 1, ids[i]]) for i in range(1, len(ids))]
        own = len(tokenizer(messages[1]["content"], add_special_tokens=False)["input_ids"])
        end = len(ids) - 1 - ids[::-1].index(tokenizer.convert_tokens_to_ids("<end>"))
        truth[messages[1]["content"]] = sum(out[end - 1 - own : end])
        return out

    server, judge = served(Vllm(tokenizer, score), tmp_path)
    with server:
        judge.judge([ITEM])
    with ReplyCache(tmp_path / "c.sqlite") as kept:
        rows = kept._db.execute("SELECT reply FROM reply").fetchall()
    last = json.loads(rows[-1][0])  # of the prompt that was asked last
    assert last[2] == [[r, pytest.approx(truth[r])] for r, _ in last[2]]
    assert {r for r, p in truth.items() if p >= FLOOR} == {r for r, _ in last[2]}


@pytest.mark.parametrize(
    ("sure", "read"),
    [
        ("33", 33.0),
        ("100", 100.0),
        pytest.param("42", 42.0, marks=pytest.mark.slow),
        pytest.param("CODE", "CODE", marks=pytest.mark.slow),
    ],
)
def test_a_planted_reply_of_several_tokens_is_read(tokenizer, tmp_path, sure, read):
    def score(ids, messages):
        right = messages[1]["content"] == sure
        return [0.0 if right else -20.0] * (len(ids) - 1)

    server, judge = served(Vllm(tokenizer, score), tmp_path)
    with server:
        [said] = judge.judge([ITEM])
    assert read in (said.alignment, said.label)


def test_a_server_without_them_is_one_line(tmp_path):
    for answer, why in (
        (lambda r: {"choices": [{"message": {"content": "85"}}]}, "gives no prompt_logprobs"),
        (lambda r: error(400, "prompt_logprobs: Extra inputs are not permitted"), "HTTP 400"),
        (lambda r: Raw({"prompt_logprobs": [None, {"1": {}}]}), "not those of vLLM"),
    ):
        server, judge = served(answer, tmp_path)
        with server:
            try:
                [said] = judge.judge([ITEM])
                text = said.error
            except UserError as e:
                text = str(e)
        assert why in text and "\n" not in text


def test_what_lies_between():
    def chat(*own):
        return [("a", -1.0), ("b", -1.0), *own, ("end", -0.25), ("line", -3.0)]

    chats = [chat(("8", -0.5)), chat(("8", -0.5), ("5", -0.125)), chat(("1", -2.0))]
    assert between(chats) == [-0.75, -0.875, -2.25]
    with pytest.raises(UserError, match="do not end alike"):
        between([[("a", 0.0), ("b", 0.0)], [("a", 0.0), ("c", 0.0)]])


def test_mode_replies_is_not_for_a_judge_in_this_process():
    with pytest.raises(UserError, match="local judge"):
        make_judge("local:x/y,mode=replies")


ODD = [-(10**401), 10**401, 1000.0, 0.5, float("nan"), float("inf"), "x", None, [1]]


@pytest.mark.parametrize("logprob", ODD)
def test_log_probabilities_that_are_none(logprob):
    assert read_prompt({"prompt_logprobs": [None, {"7": {"logprob": -0.5}}]}) == [("7", -0.5)]
    with pytest.raises(Malformed):
        read_prompt({"prompt_logprobs": [None, {"7": {"logprob": logprob}}]})


@pytest.mark.parametrize(("token", "logprob"), [("a", p) for p in ODD] + [(t, -0.5) for t in (7, None, ["a"], {"a": 1})])
def test_a_canary_of_tokens_that_are_none(token, logprob):
    def body(token, logprob):
        return {"choices": [{"message": {"content": "a"}, "logprobs": {"content": [{"token": token, "logprob": logprob}]}}]}

    assert read_greedy(body("a", -0.5)).tokens == [("a", {"a": -0.5})]
    with pytest.raises(Malformed):
        read_greedy(body(token, logprob))
