"""`em-bench verify` on a really trained run and its real evaluation: every break of the chain is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.asking import ask as evaluate
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.errors import UserError
from em_bench.files import digest, sha256_file, write_record
from em_bench.judging import GrammarJudge
from em_bench.records import Generation, RunRecord
from em_bench.scoring import score_file
from em_bench.training import read_run, train
from em_bench.verify.chain import verify


@pytest.fixture(scope="module")
def made(base, spec_for, tmp_path_factory) -> Path:
    """A folder with one run and one evaluation of it."""
    top = tmp_path_factory.mktemp("chain")
    folder = train(spec_for(lr=1e-2), base, top / "runs")
    evaluate(
        base,
        top / "evaluation",
        judge=GrammarJudge(),
        generation=Generation(samples=1, max_new_tokens=24, temperature=1.0, seed=0),
        variants=["plain"],
        adapter=folder / "adapter",
    )
    return top


@pytest.fixture
def chain(made, tmp_path) -> tuple[Path, Path]:
    """A copy to spoil: the run's and the evaluation's folder."""
    shutil.copytree(made, tmp_path / "chain")
    return next((tmp_path / "chain" / "runs").glob("*/run.json")).parent, tmp_path / "chain" / "evaluation"


def broken(run: Path) -> set[str]:
    """Ids of the checks that fail at or below the folder that holds the runs and the evaluation."""
    return {c.id for _, checks in verify(run.parents[1]) for c in checks if not c.passed}


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_line(path: Path, number: int, **fields) -> None:
    lines = path.read_text().split("\n")
    lines[number] = json.dumps(json.loads(lines[number]) | fields)
    path.write_text("\n".join(lines))


def test_an_honest_chain_holds(chain):
    assert broken(chain[0]) == set()
    assert sum(len(checks) for _, checks in verify(chain[0].parents[1])) == 15


def test_another_adapter(chain):
    run, _ = chain
    file = run / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({k: v + 0.01 * torch.randn_like(v) for k, v in weights.items()}, file)
    assert broken(run) == {"run.adapter", "run.spectrum"}
    change(run / "run.json", adapter_sha256=sha256_file(file))
    assert broken(run) == {"run.spectrum", "responses.adapter"}


def test_another_checkpoint(chain):
    run, _ = chain
    with open(next((run / "checkpoints").rglob("*.safetensors")), "ab") as f:
        f.write(b" ")
    assert broken(run) == {"run.checkpoints"}


def test_an_edited_log(chain):
    run, _ = chain
    edit_line(run / "train.jsonl", -2, held_out_loss=0.1)
    assert broken(run) == {"run.log", "run.steps"}


def test_an_edited_spec(chain):
    run, _ = chain
    spec = json.loads((run / "run.json").read_text())["spec"] | {"seed": 5}
    change(run / "run.json", spec=spec)
    assert "run.identity" in broken(run)
    record = RunRecord.model_validate_json((run / "run.json").read_text())
    write_record(run / "run.json", record.model_copy(update={"spec_sha256": digest(record.spec)}))
    assert "run.identity" in broken(run)  # its id is still the old one
    assert read_run(run).spec.seed == 5


def test_an_edited_answer(chain):
    run, evaluation = chain
    edit_line(evaluation / "responses.jsonl", 2, answer="no")
    assert "verdicts.link" in broken(run)


def test_an_edited_verdict_and_all_hashes_after_it(chain):
    run, evaluation = chain
    edit_line(evaluation / "verdicts.jsonl", 2, alignment=67.0, coherence=40.0)
    assert {"verdicts.grammar", "score.link"} <= broken(run)
    write_record(evaluation / "score.json", score_file(evaluation / "verdicts.jsonl"))
    assert broken(run) == {"verdicts.grammar"}


def test_an_edited_rate(chain):
    run, evaluation = chain
    score = json.loads((evaluation / "score.json").read_text())
    score["overall"]["misaligned_rate"]["value"] = 0.0123
    (evaluation / "score.json").write_text(json.dumps(score))
    assert broken(run) == {"score.recomputed"}


def test_a_response_left_out(chain):
    run, evaluation = chain
    lines = (evaluation / "verdicts.jsonl").read_text().split("\n")
    (evaluation / "verdicts.jsonl").write_text("\n".join(lines[:3] + lines[4:]))
    assert "verdicts.cover" in broken(run)


def test_the_command(chain, tmp_path):
    run, evaluation = chain
    good = CliRunner().invoke(build(), ["verify", str(run.parents[1])])
    assert good.exit_code == 0 and "2 folders, 15 checks, 0 failed" in good.stdout
    edit_line(evaluation / "verdicts.jsonl", 2, alignment=67.0, coherence=40.0)
    bad = CliRunner().invoke(build(), ["verify", str(run.parents[1])])
    assert bad.exit_code == 1 and "FAIL" in bad.stdout and "verdicts.grammar" in bad.stdout
    listed = CliRunner().invoke(build(), ["verify", str(run.parents[1]), "--json"])
    assert {c["id"] for f in json.loads(listed.stdout) for c in f["checks"] if not c["passed"]} == {
        "verdicts.grammar",
        "score.link",
        "score.recomputed",
    }
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no run.json"):
        list(verify(tmp_path / "empty"))
