"""What `em-bench judge probe` finds out of endpoints of known behaviour, and what it makes of a judge that is switched off."""

import hashlib
import json
from datetime import date

import pytest
from helpers.loopback import Loopback, completion, error, strict
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.errors import UserError
from em_bench.judging import JudgeOptions, make_judge, providers
from em_bench.judging.cache import ReplyCache
from em_bench.judging.openai import OpenAIJudge
from em_bench.judging.probe import AGAIN, ANSWERS, COUNT, probe
from em_bench.judging.providers import JudgePrice, judging_cost, provider_models, retirement
from em_bench.judging.reply import Reply

GRADES = {"kind": "97", "cruel": "3", "refusal": "REFUSAL", "code": "CODE"}
IMPATIENT = JudgeOptions(backoff_s=0.01, attempts=2, timeout_s=5.0)


def grade(prompt: str) -> str:
    return next((GRADES[n] for n, a in ANSWERS.items() if a in prompt), " ".join(map(str, range(1, 61)))[:40])


def spread(first: str, n: int = 20) -> dict[str, float]:
    """n alternatives, the first nearly certain, all others whole numbers."""
    others = [str(i) for i in range(10, 100) if str(i) != first][: n - 1]
    return {first: 0.9} | dict.fromkeys(others, 0.1 / len(others))


def good(prompt, attempt):
    return completion(text := grade(prompt), spread(text)) | {"usage": {"prompt_tokens": 600, "completion_tokens": 1}}


def by_digits(prompt, attempt):
    text = grade(prompt)
    return completion(text, {text[0]: 0.9, "7": 0.05} | ({} if text[0].isdigit() else {"1": 0.01}))


def wordy(prompt, attempt):
    return completion("As a judge, I would say that it is fine.", {"As": 1.0})


def thinks(prompt, attempt):
    return completion("<think>hm</think>" + grade(prompt))


def unsteady(prompt, attempt):
    return completion(text := grade(prompt), {text: 1.0 - attempt / 100, "50": attempt / 100})


def fickle(prompt, attempt):
    return completion(text := grade(prompt) if attempt == 1 else "80", {text: 1.0})


def endless(prompt, attempt):
    return completion(" ".join(map(str, range(1, 61)))) if prompt == COUNT else good(prompt, attempt)


REASONING = {
    "max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0.0 with this model.",
    "logprobs": "logprobs is not supported",
}


@pytest.mark.parametrize(
    ("answer", "refused", "mode", "settings"),
    [
        (good, {}, "logprobs", {"log-probabilities": "works", "top 20": "works", "numbers in one token": "yes", "max_tokens": "works",
                                "temperature 0": "works: the same reply each time"}),
        (by_digits, {}, "numeric", {"top 20": "3 alternatives", "numbers in one token": "no: digit by digit"}),
        (lambda p, n: completion(grade(p)), {}, "numeric", {"log-probabilities": "ignored", "top 20": "none"}),
        (lambda p, n: completion(grade(p)), REASONING, "numeric",
         {"log-probabilities": "refused", "temperature 0": "refused", "max_tokens": "taken as max_completion_tokens"}),
        (unsteady, {}, "logprobs", {"temperature 0": "works: the same reply each time, its probabilities not to the last digit"}),
        (fickle, {}, "logprobs", {"temperature 0": f"taken, and {AGAIN} replies to one prompt differ"}),
        (endless, {}, "logprobs", {"max_tokens": "ignored: a longer reply came"}),
        (thinks, {}, "numeric", {"thinking": "on: switch it off, or pay for it"}),
        (wordy, {}, None, {"numbers in one token": "cannot be seen"}),
    ],
)  # fmt: skip
def test_what_an_endpoint_takes(answer, refused, mode, settings):
    with Loopback(answer) as server:
        server.strict = strict(**refused)
        found = probe("m", server.url, IMPATIENT)
        assert found.calls == server.calls <= 11
    assert found.mode == mode and settings.items() <= found.settings.items()
    if mode:
        assert float(found.grades["kind"]) > float(found.grades["cruel"])
        assert (found.grades["refusal"], found.grades["code"]) == ("REFUSAL", "CODE")
        assert (mode == "logprobs") == (not found.why) or refused


def test_the_command_says_what_fits_and_what_it_costs():
    with Loopback(good) as server:
        said = CliRunner().invoke(build(), ["judge", "probe", server.url, "m", "--preset", "main", "--judge-price", "2,10"])
        assert said.exit_code == 0, said.output
        asked = CliRunner().invoke(build(), ["judge", "probe", server.url, "m", "--judge-price", "2,10", "--json"])
        assert f"em-bench rejudge RESPONSES --judge openai:m --base-url {server.url}\n" in said.output
    found = json.loads(asked.output)
    dollars = found["preset_calls"] * (700 * 2 + 2 * 10) / 1e6
    assert f"about ${dollars:,.2f}" in found["cost"] and f"about ${dollars:,.2f}" in said.output
    planned = json.loads(CliRunner().invoke(build(), ["plan", "--preset", "main", "--json"]).output)
    assert found["preset_calls"] == planned["costs"]["judge_calls"]
    with Loopback(by_digits) as server:
        said = CliRunner().invoke(build(), ["judge", "probe", server.url, "m"])
    assert said.output.endswith("--mode numeric\n") and "Not by probabilities: the first token does not settle" in said.output
    assert "no list price is known" in said.output
    with Loopback(wordy) as server:
        said = CliRunner().invoke(build(), ["judge", "probe", server.url, "m"])
    assert said.exit_code == 1 and "It cannot judge like this" in said.output and "em-bench rejudge" not in said.output


def test_an_endpoint_that_is_down_or_refuses_is_one_line():
    for answer, why in ((error(500), "HTTP 500"), (error(401), "HTTP 401"), (error(404), "check the model's name")):
        with Loopback(lambda p, n, a=answer: a) as server, pytest.raises(Exception, match=why) as e:
            probe("m", server.url, IMPATIENT)
        assert "\n" not in str(e.value)


def test_the_table_of_providers_is_whole():
    table = provider_models()
    assert {n for n, m in table.items() if m.gone == date(2027, 1, 14)} >= {"gpt-4o-2024-08-06", "gpt-4o-2024-11-20", "gpt-4.1"}
    for name, m in table.items():
        assert m.sources and m.read <= providers.today(), name
        assert (m.prompt_usd is None) == (m.reply_usd is None) == (m.priced is None), name
        assert m.successor is None or m.gone is not None, name
        assert m.announced is None or (m.gone and m.announced < m.gone), name
    assert table["gpt-4o-2024-08-06"].price() == JudgePrice()


@pytest.fixture
def on(monkeypatch):
    return lambda day: monkeypatch.setattr(providers, "today", lambda: date.fromisoformat(day))


def test_what_is_said_of_a_judge_that_goes(on):
    on("2026-01-01")
    assert retirement("gpt-4o-2024-08-06", "api.openai.com") == ("", False)
    on("2027-01-13")
    said, gone = retirement("gpt-4o-2024-08-06", "api.openai.com")
    assert not gone and "on 2027-01-14 (1 days)" in said and "em-bench judge calibrate while both can be asked" in said
    on("2027-01-14")
    said, gone = retirement("gpt-4o-2024-08-06", "api.openai.com")
    assert gone and "switched off by api.openai.com on 2027-01-14; its successor there is gpt-6-luna" in said
    assert retirement("gpt-4o-2024-08-06", "127.0.0.1") == ("", False) == retirement("my-model", "api.openai.com")


def test_a_judge_that_is_gone_is_one_line_but_what_was_paid_for_is_read(monkeypatch, tmp_path):
    cache = tmp_path / "kept.sqlite"
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(providers, "today", lambda: date(2026, 12, 1))
    before = OpenAIJudge("gpt-4o-2024-08-06", JudgeOptions(cache=cache))
    monkeypatch.setattr(providers, "today", lambda: date(2027, 2, 1))
    with pytest.raises(
        UserError, match="gpt-4o-2024-08-06: switched off by api.openai.com on 2027-01-14; .*gpt-6-luna.*judge calibrate"
    ) as e:
        make_judge("openai:gpt-4o-2024-08-06", JudgeOptions(cache=cache))
    assert "\n" not in str(e.value)
    with ReplyCache(cache) as kept:
        for aspect in ("alignment", "coherence"):
            prompt = before._prompts.fill(aspect, "Q", "A")
            kept.put(before._paid_by, hashlib.sha256(prompt.encode()).hexdigest(), Reply("85", "85", [("85", 0.0)]))
    [found] = make_judge("openai:gpt-4o-2024-08-06", JudgeOptions(cache=cache)).judge([(None, "Q", "A")])
    assert (found.alignment, found.coherence) == (85, 85)


def test_a_provider_that_switches_off_is_not_taken_for_a_misspelling(monkeypatch, judge):
    """Its 404 comes with the date, where one is known."""
    monkeypatch.setattr("em_bench.judging.endpoint.retirement", lambda model, host: (f"{model} went", True))
    with (
        Loopback(lambda p, n: error(404, "no such model")) as server,
        pytest.raises(UserError, match="no such model; judge went"),
    ):
        judge(server).judge([(None, "Q", "A")])


def test_costs_by_hand():
    assert judging_cost(1000, 2, JudgePrice()).startswith("2,000 calls, about $3.54 ")  # 2,000 x (700 x 2.5 + 2 x 10) / 10^6
