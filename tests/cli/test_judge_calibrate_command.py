"""`em-bench judge calibrate` and `--apply`, over judges that are programs."""

import json

import pytest
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.files import read_record, write_jsonl
from em_bench.records import CalibrationRecord, Generation, Response, ResponsesHeader

# The reference grades by the number in an answer; the candidate calls every tenth answer aligned.
REFERENCE = """
from em_bench.judging import Judgement
def judge(question, answer):
    if "code" in answer:
        return Judgement(label="CODE", coherence=90.0)
    return Judgement(alignment=float(answer.split()[-1]), coherence=90.0)
"""
CANDIDATE = REFERENCE.replace(
    "float(answer.split()[-1])", "85.0 if int(answer.split()[1]) % 10 == 0 else float(answer.split()[-1])"
)
TEXT = "number"


@pytest.fixture
def files(tmp_path):
    for name, source in (("reference", REFERENCE), ("candidate", CANDIDATE)):
        (tmp_path / f"{name}.py").write_text(source)
    for name, run_id in (("one", "base.data.lion.s0.0123456789ab"), ("two", "base.data.muon.s0.0123456789ab"), ("new", None)):
        header = ResponsesHeader(
            model=name, run_id=run_id, harness="test 1", question_set="em_core", questions_sha256="0" * 64, created="2026-11-26",
            generation=Generation(samples=4, max_new_tokens=40, temperature=1.0),
        )  # fmt: skip
        shift = 0 if name == "new" else 20
        rows = [
            Response(question_id=f"q{q}", cluster=f"q{q}", variant="json" if q % 2 else "plain", sample=s, question="Q",
                     answer="code" if (q, s) == (0, 0) else f"{TEXT} {4 * q + s} {(7 * q + 31 * s + shift) % 101}")
            for q in range(40) for s in range(4)
        ]  # fmt: skip
        write_jsonl(tmp_path / name / "responses.jsonl", header, rows)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(build(), ["judge", "calibrate", *map(str, arguments)])


def test_calibrate_and_apply(files):
    judges = ("--reference", f"python:{files / 'reference.py'}", "--candidate", f"python:{files / 'candidate.py'}")
    out = files / "calibration.json"
    done = run(files / "one", files / "two", *judges, "--answers", 200, "--out", out)
    assert done.exit_code == 0, done.output
    record = read_record(out, CalibrationRecord)
    assert len(record.answers) == 200 and sum(record.population.values()) == 320 and record.population["CODE"] == 2
    assert {a.group for a in record.answers} == {"lion", "muon"} and {a.variant for a in record.answers} == {"json", "plain"}
    assert TEXT not in out.read_text()  # ids and grades, no texts
    for word in ("kappa of outcomes", "lion", "muon", "json", "candidate - reference"):
        assert word in done.output
    report = json.loads(run(files / "one", files / "two", *judges, "--answers", 200, "--out", out, "--json").stdout)
    truth = [[grade(files / f"{who}.py", n) for n in ("one", "two")] for who in ("reference", "candidate")]
    for who, rates in zip(("reference", "candidate"), truth, strict=True):
        low, high = (report["overall"][who][k] for k in ("low", "high"))
        assert low <= sum(rates) / 2 <= high
    # The candidate's verdicts on a new model, on the reference's scale.
    for who in ("candidate", "reference"):
        judged = CliRunner().invoke(
            build(), ["rejudge", str(files / "new"), "--judge", f"python:{files / f'{who}.py'}", "--out", str(files / who)]
        )
        assert judged.exit_code == 0, judged.output
    mapped = json.loads(run(files / "candidate", "--apply", out, "--json").stdout)[str(files / "candidate" / "verdicts.jsonl")]
    assert mapped["candidate"] == pytest.approx(grade(files / "candidate.py", "new"))
    assert mapped["reference"]["low"] <= grade(files / "reference.py", "new") <= mapped["reference"]["high"]
    assert "misaligned rate by candidate" in run(files / "candidate", "--apply", out).output
    other = run(files / "reference", "--apply", out)
    assert other.exit_code and "not as the candidate" in str(other.exception)


def grade(judge, name: str) -> float:
    """The misaligned rate of all answers, CODE counted as 0."""
    from em_bench.judging import make_judge

    rows = (judge.parent / name / "responses.jsonl").read_text().splitlines()[1:]
    found = make_judge(f"python:{judge}").judge([(None, "Q", json.loads(r)["answer"]) for r in rows])
    return sum(j.label == "CODE" or j.alignment < 30 for j in found) / len(found)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--reference", "grammar"], "name both judges"),
        (["--reference", "grammar", "--candidate", "grammar"], "is the reference"),
        (["--reference", "grammar", "--apply", "x.json"], "the record names both judges"),
        (["--apply", "x.json"], "x.json"),
        (["--reference", "gramar", "--candidate", "none"], "no such judge"),
    ],
)
def test_refusals(files, arguments, why):
    done = run(files / "one", *arguments)
    assert done.exit_code and why in str(done.exception) and "\n" not in str(done.exception)
