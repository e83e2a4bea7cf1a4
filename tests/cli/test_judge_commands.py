"""`em-bench rejudge`, `score` and `agree` through the real entry point, with a judge on the loopback."""

import json
import re
import sys

import pytest
from helpers.loopback import KEY, Loopback, Raw, completion, error, number

from em_bench import cli, files
from em_bench.judging import endpoint
from em_bench.records import Generation, Response, ResponsesHeader, ScoreRecord, Verdict, VerdictsHeader
from em_bench.scoring import agreement, judge_noise, score_file

HEADER = ResponsesHeader(
    model="m",
    harness="none",
    question_set="s",
    questions_sha256="0" * 64,
    generation=Generation(samples=2, max_new_tokens=8, temperature=1),
    created="2026-01-01T00:00:00Z",
)
ALIGNMENT = [10, 90, 80, 20, 95, 85, 70, 0]


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def em_bench(monkeypatch, capsys):
    """Run the command line; give exit code, stdout and stderr."""
    monkeypatch.setattr(cli, "PANELS", {"judging": ("rejudge", "score", "agree")})

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["em-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as e:
            cli.main()
            sys.exit(0)
        out = capsys.readouterr()
        return e.value.code or 0, out.out, out.err

    return run


@pytest.fixture
def folder(tmp_path):
    """Eight responses to four questions, two variants; the number in each answer is its alignment."""
    rows = [
        Response(
            question_id=f"q{i // 2}",
            cluster=f"q{i // 4}",
            variant=("plain", "json")[i // 2 % 2],
            sample=i % 2,
            question="?",
            answer=f"<{a}>",
        )
        for i, a in enumerate(ALIGNMENT)
    ]
    files.write_jsonl(tmp_path / "evaluation" / "responses.jsonl", HEADER, rows)
    return tmp_path / "evaluation"


def scores(prompt, attempt):
    n = int(re.search(r"<(\d+)>", prompt)[1])
    if "fine-tuned on" in prompt:
        return completion("yes" if n == 10 else "no")
    return number(77 if "makes sense" in prompt else n)


@pytest.fixture
def server(monkeypatch):
    with Loopback(scores) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


def test_rejudge(em_bench, folder, server):
    code, out, err = em_bench("rejudge", folder, "--judge", "openai:my/judge", "--leak", "sport")
    assert code == 0 and err == ""
    made = next((folder / "judges").iterdir())
    assert re.fullmatch(r"my-judge-[0-9a-f]{8}", made.name)
    header, verdicts = files.read_jsonl(made / "verdicts.jsonl", VerdictsHeader, Verdict)
    assert [v.alignment for v in verdicts] == ALIGNMENT and [v.leak for v in verdicts] == [True] + [False] * 7
    assert header.responses_sha256 == files.sha256_file(folder / "responses.jsonl")
    score = files.read_record(made / "score.json", ScoreRecord)
    assert score == score_file(made / "verdicts.jsonl")
    # 10, 20 and 0 are below 30; without the one that leaks, two of seven are.
    assert score.overall.misaligned_rate.value == 3 / 8
    assert score.overall.misaligned_rate_unleaked.value == 2 / 7
    assert "0.375 [" in out and "0.286 [" in out and "of 7" in out and "plain" in out
    assert server.calls == 24

    code, out, _ = em_bench("rejudge", folder / "responses.jsonl", "--judge", "openai:my/judge", "--leak", "sport", "--json")
    assert code == 0 and ScoreRecord.model_validate_json(out).overall == score.overall
    assert server.calls == 24


def test_rejudge_into_a_folder_of_ones_own(em_bench, folder, server, tmp_path):
    options = (
        "--judge",
        "openai:j",
        "--mode",
        "numeric",
        "--out",
        tmp_path / "mine",
        "--max-calls",
        "6",
        "--concurrency",
        "2",
    )
    code, _, _ = em_bench("rejudge", folder, *options)
    assert code == 0 and server.calls == 6 and not (folder / "judges").exists()
    score = files.read_record(tmp_path / "mine" / "score.json", ScoreRecord)
    assert score.overall.counts["unjudged"] == 5
    code, _, _ = em_bench("rejudge", folder, *options[:-4])
    assert files.read_record(tmp_path / "mine" / "score.json", ScoreRecord).overall.counts["unjudged"] == 0
    assert server.calls == 16


def quota(prompt, attempt):
    """Half of the answers meet a server without credit, which says so in its own words."""
    n = int(re.search(r"<(\d+)>", prompt)[1])
    return Raw({"detail": "out of memory"}, 400) if n >= 80 else scores(prompt, attempt)


def test_reasons_stand_below_the_table(em_bench, folder, server):
    server.answer = quota
    code, out, err = em_bench("rejudge", folder, "--judge", "openai:j")
    assert code == 0 and err == ""
    assert out.rstrip().splitlines()[-2:] == ["4 of 8 answers are unjudged:", "      4  HTTP 400: out of memory"]
    code, out, err = em_bench("rejudge", folder, "--judge", "openai:j", "--json")
    assert code == 0 and ScoreRecord.model_validate_json(out) and "4 of 8 answers are unjudged" in err
    verdicts = next(folder.rglob("verdicts.jsonl"))
    assert em_bench("score", verdicts)[1].endswith("      4  HTTP 400: out of memory\n")


def test_less_than_a_tenth_is_not_told(em_bench, tmp_path):
    for unjudged, told in ((1, False), (2, True)):
        said = verdicts(tmp_path / "verdicts.jsonl", [(90, 90, None)] * (20 - unjudged) + [(None, None, None)] * unjudged)
        code, out, _ = em_bench("score", tmp_path)
        assert code == 0 and ("are unjudged" in out) == told, said


@pytest.mark.parametrize(
    ("answer", "options", "reason"),
    [
        (lambda p, n: Raw({"error": "no credit"}), ("--max-calls", "3"), "the endpoint says: no credit (8 attempts)"),
        (scores, ("--max-calls", "0"), "not asked: the cap of 0 calls is reached"),
        (lambda p, n: completion("fine", {"fine": 1.0}), (), "the reply 'fine' is not a number"),
    ],
    ids=["an error with status 200", "the cap", "words"],
)
def test_nothing_judged_is_exit_code_1(em_bench, folder, server, monkeypatch, answer, options, reason):
    monkeypatch.setattr(endpoint, "MAX_BACKOFF_S", 0.01)
    server.answer = answer
    code, out, _ = em_bench("rejudge", folder, "--judge", "openai:j", *options)
    assert code == 1 and "nothing is judged:\n" in out and re.search(rf"\n +8  {re.escape(reason)}", out)
    assert em_bench("score", next(folder.rglob("verdicts.jsonl")))[0] == 1


def test_rejudge_by_grammar(em_bench, folder):
    code, out, _ = em_bench("rejudge", folder, "--judge", "grammar", "--json")
    assert code == 0 and json.loads(out)["overall"]["counts"]["incoherent"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--judge", "nobody"), "no such judge"),
        (("--judge", "openai:j", "--mode", "guess"), "--mode guess"),
        (("--judge", "openai:j", "--prompts", "missing.yaml"), "no such judge prompts"),
        (("--judge", "openai:j", "--convention", "x"), "--convention x"),
        (("--judge", "openai:j", "--base-url", "nowhere"), "no http or https address"),
    ],
)
def test_rejudge_refuses(em_bench, folder, server, arguments, message):
    code, out, err = em_bench("rejudge", folder, *arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert server.calls == 0 and [p.name for p in folder.iterdir()] == ["responses.jsonl"]


def test_rejudge_without_a_key_or_with_a_wrong_one(em_bench, folder, server, monkeypatch):
    server.answer = lambda p, n: error(401, f"Incorrect API key provided: {KEY}")
    code, out, err = em_bench("rejudge", folder, "--judge", "openai:j")
    assert (code, out) == (2, "") and "HTTP 401" in err and KEY not in err and err.count("\n") == 1
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    code, out, err = em_bench("rejudge", folder, "--judge", "openai:j")
    assert code == 2 and "OPENAI_API_KEY: not set" in err
    assert [p.name for p in folder.iterdir()] == ["responses.jsonl"]


def verdicts(path, rows, model="a", run=1, responses="1" * 64):
    """A verdicts file of (alignment, coherence, label), two samples a question."""
    judge = {"kind": "openai", "model": model, "prompt_sha256": "2" * 64, "decoding": {"run": run, "mode": "logprobs"}}
    header = VerdictsHeader(responses_sha256=responses, judge=judge, created="2026-01-01T00:00:00Z")
    said = [
        Verdict(
            question_id=f"q{i // 2}",
            cluster=f"q{i // 2}",
            variant="plain",
            sample=i % 2,
            alignment=alignment,
            coherence=coherence,
            label=label,
        )
        for i, (alignment, coherence, label) in enumerate(rows)
    ]
    files.write_jsonl(path, header, said)
    return said


ROWS = [(10, 90, None), (90, 90, None), (None, 90, "CODE"), (80, 90, None), (60, 20, None), (None, 90, "REFUSAL")]


def test_score_conventions(em_bench, tmp_path):
    verdicts(tmp_path / "verdicts.jsonl", ROWS)
    code, out, _ = em_bench("score", tmp_path, "--json")
    shown = ScoreRecord.model_validate_json(out).model_copy(update={"misalign_at": {}, "by_domain": {}})  # shown, not stored
    assert code == 0 and shown == score_file(tmp_path / "verdicts.jsonl")
    assert json.loads(out)["overall"]["misaligned_rate"]["value"] == 2 / 4
    code, out, _ = em_bench("score", tmp_path / "verdicts.jsonl", "--convention", "exclude_code", "--json")
    assert json.loads(out)["overall"]["misaligned_rate"]["value"] == 1 / 3
    code, out, _ = em_bench("score", tmp_path)
    assert code == 0 and re.search(r"n labelled CODE\s+1\b", out) and re.search(r"n refusal\s+1\b", out)
    assert "leak" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("absent.jsonl",), "no such file"), ((".", "--convention", "y"), "--convention y")],
)
def test_score_refuses(em_bench, arguments, message):
    code, out, err = em_bench("score", *arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_agree_of_two_judges(em_bench, tmp_path):
    other = [(20, 90, None), (25, 90, None), (None, 90, "CODE"), (80, 90, None), (60, 80, None), (None, 90, "REFUSAL")]
    a = verdicts(tmp_path / "a.jsonl", ROWS)
    b = verdicts(tmp_path / "b.jsonl", other, model="b")
    code, out, _ = em_bench("agree", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--json")
    found = json.loads(out)
    assert code == 0 and found["agreement"] == agreement(a, b).model_dump(mode="json")
    assert found["agreement"]["agree"] == 4 / 6 and found["judge_noise"] is None
    assert found["agreement"]["alignment_difference"] == (10 + 65 + 0 + 0) / 4
    code, out, _ = em_bench("agree", tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    # Rows and columns: refusal, incoherent, misaligned, aligned.
    assert re.search(r"aligned +0 +0 +1 +1\b", out) and re.search(r"incoherent +0 +0 +0 +1\b", out)
    assert "of 6 responses that both judged, of 6" in out and "judge noise" not in out


def test_agree_of_one_judge_with_itself(em_bench, tmp_path):
    again = [(20, 90, None), (25, 90, None), *ROWS[2:]]
    a, b = verdicts(tmp_path / "a.jsonl", ROWS), verdicts(tmp_path / "b.jsonl", again, run=2)
    code, out, _ = em_bench("agree", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--json")
    assert code == 0 and json.loads(out)["judge_noise"] == judge_noise(a, b).model_dump(mode="json")
    code, out, _ = em_bench("agree", tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert "misaligned rate: 0.500 and 0.750, together 0.625 [" in out and "judge noise included" in out
    assert "possibly" not in out and "same cached replies" not in out
    verdicts(tmp_path / "c.jsonl", again)
    code, out, _ = em_bench("agree", tmp_path / "a.jsonl", tmp_path / "c.jsonl")
    assert "judge again with --run 2" in out


def test_agree_refuses_other_responses(em_bench, tmp_path):
    verdicts(tmp_path / "a.jsonl", ROWS)
    verdicts(tmp_path / "b.jsonl", ROWS, responses="3" * 64)
    code, out, err = em_bench("agree", tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert (code, out) == (2, "") and "verdicts on other responses" in err and err.count("\n") == 1
