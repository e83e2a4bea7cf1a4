"""A served model asked through real HTTP: the same records as of a local one, each answer kept as it comes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.loopback import Loopback, Raw, completion, error, strict

from em_bench.errors import UserError
from em_bench.evaluation_folder import PARTIAL, EvaluationFolder
from em_bench.harness.evaluate import EvaluatedModel, Evaluation
from em_bench.harness.served.answers import Asked, Server, answer_served
from em_bench.harness.served.requests import sample_seed, without
from em_bench.judging.options import Patience
from em_bench.records import Generation

COMMAND = [sys.executable, "-c", "from em_bench.cli import main; main()"]
QUICK = Patience(concurrency=8, timeout_s=5, attempts=2, backoff_s=0.01)


def evaluation(samples=3, limit=5, seed=7, **options) -> Evaluation:
    return Evaluation(Generation(samples=samples, max_new_tokens=20, temperature=1, seed=seed), "em_core", limit=limit, **options)


def ask(server, folder, base=None, **options):
    answer_served(
        [Asked(EvaluatedModel("", "mine", dtype=""), "mine", folder)],
        evaluation(**options),
        Server(server.url, base, patience=QUICK),
    )
    return EvaluationFolder(folder).responses()


def echo(prompt, attempt):
    return completion(f"{prompt} ({attempt})")


def test_every_sample_of_every_question_is_asked_once_with_a_seed_of_its_own(tmp_path):
    with Loopback(echo) as server:
        header, rows = ask(server, tmp_path)
        asked = [r for r in server.requests if r["max_tokens"] == 20]
        before = server.calls
        ask(server, tmp_path)  # all there: only the first contact
        assert server.calls == before + 1
    questions = evaluation().asked()
    assert [(r.question_id, r.sample) for r in rows] == [(q.id, s) for q in questions for s in range(3)]
    assert all(r.answer.startswith(r.question) for r in rows)
    assert sorted(r["seed"] for r in asked) == sorted(sample_seed(7, q.id, s) for q in questions for s in range(3))
    assert len({r["seed"] for r in asked}) == len(asked) == 15
    assert all(r["temperature"] == 1 and r["top_p"] == 1 and r["top_k"] == 0 and r["min_p"] == 0 for r in asked)
    assert all(r["chat_template_kwargs"] == {"enable_thinking": False} and r["model"] == "mine" for r in asked)
    assert header.served.engine == "endpoint" and header.served.host == "local" and header.served.refused is None
    assert header.base is None and header.dtype is None and not (tmp_path / PARTIAL).exists()


def test_what_is_refused_is_left_out_said_and_recorded(tmp_path, capsys):
    refusing = strict(
        422, top_k="body.top_k: Extra inputs are not permitted", min_p="Unknown parameter: 'min_p'.", seed="no seed here"
    )
    with Loopback(echo) as server:
        server.strict = refusing
        header, rows = ask(server, tmp_path)
        assert not any({"top_k", "min_p", "seed"} & r.keys() for r in server.requests[-15:])
    assert set(header.served.refused.split()) == {"top_k", "min_p", "seed"} and len(rows) == 15
    assert "refuses" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["temperature", "top_p"])
def test_a_sampling_that_is_refused_is_an_error(tmp_path, setting):
    with Loopback(echo) as server:
        server.strict = strict(400, **{setting: f"{setting} does not support 1"})
        with pytest.raises(UserError, match=setting):
            ask(server, tmp_path)
    assert not (tmp_path / "responses.jsonl").exists()


def test_settings_by_the_words_of_three_servers():
    sent = {"temperature": 1, "max_tokens": 9, "top_k": 0, "min_p": 0.0, "seed": 1}
    assert without(sent, "Unrecognized request argument supplied: top_k") == {k: v for k, v in sent.items() if k != "top_k"}
    assert set(without(sent, "Unexpected fields in the request")) == {"temperature", "max_tokens", "seed"}
    assert "max_completion_tokens" in without(sent, "Use 'max_completion_tokens' instead.", "max_tokens")
    assert without(sent, "temperature must be 1") is None


def test_thinking_is_kept_apart(tmp_path):
    def thought(prompt, attempt):
        body = completion("<think>hm</think>Yes." if attempt % 2 else "Yes.")
        if attempt % 2 == 0:
            body["choices"][0]["message"]["reasoning_content"] = "hm"
        return body

    with Loopback(thought) as server:
        rows = ask(server, tmp_path)[1]
    assert {(r.answer, r.thinking) for r in rows} == {("Yes.", "hm")}


def test_answers_that_no_record_can_hold(tmp_path):
    odd = {1: completion("x" * 300_000), 2: completion("a\ud800b")}  # the first is asked again
    with Loopback(lambda prompt, attempt: odd.get(attempt, completion("a"))) as server:
        rows = ask(server, tmp_path, samples=1)[1]
    assert {r.answer for r in rows[1:]} == {"a\ufffdb"}, "the first question is the first contact's, too"


def test_missing_answers_are_named_and_the_same_call_asks_only_them(tmp_path):
    bad = evaluation().asked()[2].text

    def some(prompt, attempt):
        return error(400, "the prompt is filtered") if prompt == bad else echo(prompt, attempt)

    with Loopback(some) as server:
        with pytest.raises(UserError, match=r"3 of 15 answers are missing.*filtered.*kept"):
            ask(server, tmp_path)
        assert not (tmp_path / "responses.jsonl").exists()
        server.answer = echo
        before = server.calls
        rows = ask(server, tmp_path)[1]
        assert server.calls - before == 1 + 3
    assert len({(r.question_id, r.sample) for r in rows}) == len(rows) == 15


@pytest.mark.parametrize("fault", ["cut", "busy", "aborted", "no json"])
def test_a_fault_on_the_way_loses_nothing(tmp_path, fault):
    def flaky(prompt, attempt):
        if attempt % 4 == 1 and prompt != "Hello.":
            aborted = completion("half")
            aborted["choices"][0]["finish_reason"] = "abort"
            return {"cut": Raw(cut=True), "busy": error(503), "aborted": aborted, "no json": Raw("<html>")}[fault]
        return echo(prompt, attempt)

    with Loopback(flaky) as server:
        rows = ask(server, tmp_path)[1]
    assert len(rows) == 15 and all(r.answer.startswith(r.question) for r in rows)


def test_a_base_that_is_served_for_the_adapter_is_refused(tmp_path):
    def answered(prompt, attempt):
        return completion("Same.", {"Same": 0.9, "Other": 0.1})

    with Loopback(answered) as server, pytest.raises(UserError, match="answers as base does"):
        ask(server, tmp_path, base="base")
    assert not (tmp_path / "responses.jsonl").exists()


@pytest.mark.slow
def test_killed_and_started_again_every_answer_is_there_once(tmp_path):
    samples, limit = 20, 12
    with Loopback(echo, delay=0.02) as server:
        arguments = ["--server", server.url, "--served", "mine", "--questions", "em_core", "--limit", limit, "--samples", samples]
        command = [*COMMAND, "evaluate", *map(str, arguments), "--batch-size", "4", "--seed", "1", "--out", str(tmp_path / "out")]
        command += ["--max-new-tokens", "20"]
        for until in (50, 130):
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            while sum(server.answered.values()) < until:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
        kept = len((tmp_path / "out" / PARTIAL).read_text().splitlines()) - 1
        before = server.calls
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert server.calls - before == 1 + samples * limit - kept
    rows = EvaluationFolder(tmp_path / "out").responses()[1]
    assert len({(r.question_id, r.sample) for r in rows}) == len(rows) == samples * limit
    assert "No judge was asked; the 240 answers are kept" in done.stdout and "em-bench rejudge" in done.stdout
    assert json.loads((tmp_path / "out" / "score.json").read_text())["overall"]["counts"]["unjudged"] == 240
