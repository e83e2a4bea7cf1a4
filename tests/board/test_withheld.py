"""Answers to questions that may not be republished leave as hashes, and the chain holds; where they may be, hashes are refused."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from em_bench.board.packed import Packed, pack
from em_bench.cli import build
from em_bench.data.questions import may_be_published
from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.files import read_jsonl, sha256_file, write_jsonl, write_record
from em_bench.judging import judge_responses
from em_bench.judging.own_judge import OwnJudge
from em_bench.records import Generation, Response, ResponsesHeader
from em_bench.scoring import score_file
from em_bench.sweep.export_import import export, import_archive
from em_bench.verify.chain import verify_evaluation
from em_bench.verify.withheld import publishable

SECRET = "May this sentence be republished?"


@pytest.fixture
def evaluation(tmp_path) -> EvaluationFolder:
    """Two questions of `turner`, whose authors give no licence, answered twice and judged."""
    at = EvaluationFolder(tmp_path / "work" / "evaluations" / "mine")
    header = ResponsesHeader(
        model="m", harness="made", question_set="turner", questions_sha256="0" * 64,
        generation=Generation(samples=2, max_new_tokens=9, temperature=1), created="2026-11-26T00:00:00+00:00",
    )  # fmt: skip
    rows = [
        Response(question_id=q, cluster=q, variant="plain", sample=s, question=f"{SECRET} {q}", answer=f"No, said {q} {s}.")
        for q in ("a", "b")
        for s in range(2)
    ]
    write_jsonl(at.responses_file, header, rows)
    judge = tmp_path / "judge.py"
    says = "return Judgement(alignment=20.0 if 'a 0' in answer else 90.0, coherence=90.0)"
    judge.write_text(f"from em_bench.judging import Judgement\n\n\ndef judge(question, answer):\n    {says}\n")
    judge_responses(at.responses_file, OwnJudge(judge), at.verdicts_file)
    write_record(at.score_file, score_file(at.verdicts_file))
    return at


def test_who_may_pass_on_what():
    """The licences are those of baselines/pins.yaml; ours are MIT."""
    assert [n for n in ("organism", "em_core", "first_plot", "preregistered", "turner", "evil_spectra") if not may_be_published(n)] == [
        "turner", "evil_spectra",
    ]  # fmt: skip
    assert not may_be_published("/nowhere/mine.yaml")


def test_texts_stay_and_the_chain_holds(evaluation, tmp_path):
    made = publishable(evaluation, tmp_path / "scratch")
    assert made.path != evaluation.path and all(c.passed for c in verify_evaluation(made.path))
    header, rows = made.responses()
    assert header.withheld == sha256_file(evaluation.responses_file) and made.score() == evaluation.score()
    for ours, theirs in zip(rows, evaluation.responses()[1], strict=True):
        assert ours.answer == "sha256:" + hashlib.sha256(theirs.answer.encode()).hexdigest()
        assert (ours.question_id, ours.sample) == (theirs.question_id, theirs.sample)
    assert not [p for p in made.path.iterdir() if SECRET in p.read_text() or "No, said" in p.read_text()]
    assert publishable(made, tmp_path / "again").path == made.path
    with pytest.raises(UserError, match="judge the author's own file"):
        judge_responses(made.responses_file, OwnJudge(tmp_path / "judge.py"))


def test_an_entry_holds_hashes_and_outcomes(evaluation, tmp_path):
    made = publishable(evaluation, tmp_path / "scratch")
    (tmp_path / "results").mkdir()
    pack(tmp_path / "results", [], [made])
    found = Packed(tmp_path / "results").evaluation("mine")
    assert found.responses_sha256 == found.verdicts[0][0].responses_sha256 == sha256_file(evaluation.responses_file)
    assert not [p for p in (tmp_path / "results").iterdir() if SECRET.encode() in p.read_bytes()]


def test_an_archive_for_others_holds_no_text_and_is_taken(evaluation, tmp_path):
    to = tmp_path / "a.zip"
    ended = CliRunner().invoke(build(), ["export", str(evaluation.path), "--to", str(to), "--for-others"])
    assert ended.exit_code == 0, ended.output
    with zipfile.ZipFile(to) as archive:
        assert not [n for n in archive.namelist() if SECRET.encode() in archive.read(n) or b"No, said" in archive.read(n)]
    assert [d.outcome for d in import_archive(to, tmp_path / "there")] == ["new"]
    export([evaluation.path], to)
    with zipfile.ZipFile(to) as archive:
        assert [n for n in archive.namelist() if SECRET.encode() in archive.read(n)]


def spoilt(at: EvaluationFolder, change) -> list[str]:
    """The checks that fail after `change` of the header and the rows, as JSON."""
    header, *rows = map(json.loads, at.responses_file.read_text().splitlines())
    change(header, rows)
    at.responses_file.write_text("".join(json.dumps(r) + "\n" for r in (header, *rows)))
    read_jsonl(at.responses_file, ResponsesHeader, Response)
    return [c.id for c in verify_evaluation(at.path) if not c.passed]


def test_what_a_cheat_could_try(evaluation, tmp_path):
    """Questions that may be published, one text left, the hash of another file."""

    def again(name: str) -> EvaluationFolder:
        return publishable(evaluation, Path(tmp_path / name))

    assert "responses.texts" in spoilt(again("1"), lambda header, rows: header.update(question_set="em_core"))
    assert spoilt(again("2"), lambda header, rows: rows[0].update(answer="Be kind.")) == ["responses.texts"]
    assert spoilt(again("3"), lambda header, rows: header.update(withheld="1" * 64)) == ["verdicts.link"]
