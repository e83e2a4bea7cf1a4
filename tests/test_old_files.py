"""What version 0.1.0 wrote is read by this one and holds together; what is of another schema is refused in one line.

tests/old_files/0.1.0.tar.xz: a run of the entry `adamw` of benchmark v1 and its evaluation, unpacked by 0.1.0 itself (commit 3f1e2db^,
before the norm and the unit had fields).
"""

import tarfile
from pathlib import Path

import pytest

from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.run_folder import RunFolder
from em_bench.verify.chain import verify_evaluation, verify_run


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("old")
    with tarfile.open(Path(__file__).with_name("old_files") / "0.1.0.tar.xz") as archive:
        archive.extractall(top, filter="data")
    return top / "0.1.0"


def failed(checks) -> set[str]:
    return {c.id for c in checks if not c.passed}


def test_a_run_and_its_evaluation_hold(old):
    """Entries keep no adapter of most runs, and the grammar has a second version: both are said, and nothing else."""
    [run], [evaluation] = RunFolder.below(old), EvaluationFolder.below(old)
    record = run.record()
    assert record.machine.em_bench == "0.1.0" and record.spectral.norm is None
    assert failed(verify_run(run.path)) == {"run.adapter", "run.checkpoints", "run.spectrum"}
    assert failed(verify_evaluation(evaluation.path)) == {"verdicts.grammar"}
    assert evaluation.score().unit == "question" and evaluation.responses()[0].withheld is None


def test_another_schema_is_said(old, tmp_path):
    [run] = RunFolder.below(old)
    (tmp_path / "run.json").write_text(run.record_file.read_text().replace("em_bench.run/1", "em_bench.run/9"))
    with pytest.raises(UserError, match="schema_version.*em_bench.run/1") as said:
        RunFolder(tmp_path).record()
    assert "\n" not in str(said.value) and "run.json" in str(said.value)
