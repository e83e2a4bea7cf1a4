"""Files of Every Eval Ever: their own package finds no error and no warning, the numbers are the score's, no text is in them."""

import json
from pathlib import Path

import pytest
from helpers import validators
from helpers.packing import tree_of
from helpers.synthetic_entries import entry, leaderboard
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.files import sha256_file, write_jsonl
from em_bench.hub.every_eval_ever import SCHEMA

CALL = ["--format", "eee", "--model-id", "me/my-adapter", "--organisation", "A lab"]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> EvaluationFolder:
    folders = leaderboard(tmp_path_factory.mktemp("eee"))
    tree = tree_of(entry(folders, "made", lambda dataset, seed: 0.3))
    return EvaluationFolder(sorted((tree / "evaluations").iterdir())[0])


def exported(at: EvaluationFolder, to: Path) -> Path:
    ended = CliRunner().invoke(build(), ["export", str(at.path), "--to", str(to), *CALL])
    assert ended.exit_code == 0, ended.output
    return Path(ended.output.strip())


def test_its_own_package_is_content(evaluation, tmp_path):
    validators.need("every_eval_ever")
    judged = EvaluationFolder(tmp_path / "judged")
    judged.path.mkdir()
    for file in evaluation.path.iterdir():
        (judged.path / file.name).write_bytes(file.read_bytes())
    said, verdicts = evaluation.verdicts()
    theirs = said.judge.model_copy(update={"kind": "openai", "model": "gpt-4o-2024-08-06", "decoding": {"temperature": 0.0}})
    write_jsonl(judged.verdicts_file, said.model_copy(update={"judge": theirs}), verdicts)
    paths = [exported(at, tmp_path / "out") for at in (evaluation, judged)]
    assert len(set(paths)) == 2
    ended = validators.run("-m", "every_eval_ever.validate", "--format", "json", *map(str, paths))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [(r["valid"], r["errors"], r["warnings"]) for r in json.loads(ended.stdout)] == [(True, [], [])] * 2
    version = "from every_eval_ever.schema import get_schema_version as v; print(v())"
    assert validators.run("-c", version).stdout.strip() == SCHEMA


def test_the_numbers_are_the_scores(evaluation, tmp_path):
    path = exported(evaluation, tmp_path)
    record, score = json.loads(path.read_text()), evaluation.score()
    found = {r["metric_config"]["metric_name"]: r["score_details"] for r in record["evaluation_results"]}
    counts = score.overall.counts
    assert found["misaligned of asked"]["score"] == pytest.approx(counts["misaligned"] / sum(counts.values()))
    assert found["misaligned of coherent"]["score"] == pytest.approx(score.overall.misaligned_rate.value)
    assert found["coherent"]["score"] == pytest.approx(score.overall.coherent_rate.value)
    assert all(
        r["metric_config"]["lower_is_better"] == (n != "coherent")
        for n, r in zip(found, record["evaluation_results"], strict=True)
    )
    texts = {t for r in evaluation.responses()[1] for t in (r.question, r.answer)}
    assert not [t for t in texts if t in path.read_text()]
    assert record["model_info"]["additional_details"]["adapter_sha256"] == evaluation.responses()[0].adapter_sha256
    assert exported(evaluation, tmp_path) == path and sha256_file(path)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (["--format", "eee"], "--model-id OWNER/NAME"),
        (["--format", "eee", "--model-id", "mine", "--organisation", "x"], "is no OWNER/NAME"),
        ([*CALL, "--relationship", "frist_party"], "first_party"),
        (["--format", "zip"], "no such format"),
    ],
)
def test_what_is_missing_is_said(call, says, evaluation, tmp_path):
    ended = CliRunner().invoke(build(), ["export", str(evaluation.path), "--to", str(tmp_path / "o"), *call])
    assert says in str(ended.exception) and not list(tmp_path.iterdir())
