"""What an archive brings is proven before it is taken: every run and evaluation by its chain, and each by the other."""

import math
from pathlib import Path

from em_bench.adapter_file import read_config
from em_bench.errors import UserError
from em_bench.evaluation_folder import CELL, SCORE, EvaluationFolder
from em_bench.files import sha256_file
from em_bench.records import CellRun, ResponsesHeader, RunRecord, StepRecord, Subject
from em_bench.run_folder import CONFIG, RECORD, RUNS, RunFolder
from em_bench.scoring import question_counts
from em_bench.training.adapter import EXPERTS
from em_bench.verify.chain import verify_evaluation, verify_margin, verify_run


def verify_arrived(archive: Path, name: str, top: Path) -> None:
    """The run or evaluation `name` below `top`. Raises UserError, which names the archive, for the first thing that does not hold."""
    folder = top / name
    try:
        if name.startswith(f"{RUNS}/"):
            checks = verify_run(folder)
            if RunFolder(folder).record().run_id != folder.name:
                raise UserError(f"{RECORD} is of another run")
            _check_configs(RunFolder(folder))
        else:
            at = EvaluationFolder(folder)
            checks = []
            if at.responses_file.exists():
                checks += verify_evaluation(folder)
                _check_links(at, at.responses()[0], top)
            if at.margin_file().exists():
                header = at.margins()["model"][0]
                checks += verify_margin(folder)
                _check_links(at, header, top)
            if not checks:
                raise UserError("neither answers nor margins are in it")
    except UserError as e:
        raise UserError(f"{archive}: {name}: {str(e).replace(str(top) + '/', '')}") from None
    if failed := [c for c in checks if not c.passed]:
        raise UserError(
            f"{archive}: {name}: {failed[0].id}: {failed[0].sentence}: {failed[0].detail.replace(str(top) + '/', '')}"
        )


def _check_configs(run: RunFolder) -> None:
    """Each adapter_config.json says the shape that the run's record says: PEFT believes the file, not the record."""
    record = run.record()
    lora, rank = record.spec.lora, record.expert_rank
    patterns = (
        {"rank_pattern": {EXPERTS: rank}, "alpha_pattern": {EXPERTS: lora.alpha * math.sqrt(rank / lora.rank)}} if rank else {}
    )
    expected = {"peft_type": "LORA", "r": lora.rank, "lora_alpha": lora.alpha, "use_rslora": True} | patterns
    for adapter in (run.adapter(), *map(run.adapter, run.checkpoint_steps())):
        if not (adapter / CONFIG).exists():
            raise UserError(f"{adapter.relative_to(run.path)}/{CONFIG} is missing")
        said = read_config(adapter)
        wrong = next((f for f, v in expected.items() if said.get(f) != v), None)
        wrong = wrong or next((f for f in ("rank_pattern", "alpha_pattern") if said.get(f) and f not in expected), None)
        if wrong:
            raise UserError(f"{adapter.relative_to(run.path)}/{CONFIG}: {wrong} is of another adapter than the run's record")


def _check_links(at: EvaluationFolder, header: Subject, top: Path) -> None:
    """An evaluation's cell follows from its files, and it is of an adapter of its run, where the run came too."""
    its = RunFolder(top / RUNS / header.run_id) if header.run_id else None
    run = its.record() if its and its.complete else None
    if at.cell_file.exists():
        log = its.log() if its and run else []
        if isinstance(header, ResponsesHeader):
            _check_cell(at, header)
            _check_settings(at.cell(), run, log)
        else:
            _check_settings(at.cell_margin(), run, log)
    if its is None or run is None:
        return
    if header.adapter_sha256 != (run.adapter_sha256 if header.step is None else run.checkpoints.get(header.step)):
        raise UserError("it is not of an adapter of their run")
    config = its.adapter(header.step) / CONFIG
    if header.adapter_config_sha256 and (not config.exists() or sha256_file(config) != header.adapter_config_sha256):
        raise UserError(f"it is of an adapter with another {CONFIG}")


def _check_cell(at: EvaluationFolder, header: ResponsesHeader) -> None:
    """Everything in the cell that the files of its answers say too."""
    cell, score = at.cell(), at.score()
    if (cell.responses_sha256, cell.run_id, cell.adapter_sha256) != (
        header.withheld or sha256_file(at.responses_file),
        header.run_id,
        header.adapter_sha256,
    ):
        raise UserError(f"{CELL} is of other responses")
    if cell.step != header.step or cell.score != score or cell.narrow_loss != score.narrow_loss:
        raise UserError(f"{CELL} says other numbers than {SCORE}")
    counted = question_counts(at.verdicts()[1], {q.question_id: q.domain for q in cell.questions if q.domain})
    if cell.questions != counted:
        raise UserError(f"{CELL}: questions: do not follow from the verdicts")


def _check_settings(cell: CellRun, run: RunRecord | None, log: list[StepRecord]) -> None:
    """Everything in the cell that its run's record and log say too."""
    if run is not None:
        spec = run.spec
        said = (cell.spec_sha256, cell.recipe, cell.learning_rate, cell.spectral_lambda, cell.batch_size, cell.seed, cell.steps)
        if said != (
            run.spec_sha256,
            spec.recipe.name,
            spec.recipe.learning_rate,
            spec.spectral_lambda,
            spec.batch_size,
            spec.seed,
            spec.steps,
        ):
            raise UserError(f"{CELL} says other settings than its run")
        if cell.step is None and (cell.narrow_loss, cell.spectral) != (run.narrow_loss, run.spectral):
            raise UserError(f"{CELL} says another loss or spectrum than its run")
        measured = [(s.step, s.held_out_loss) for s in log if s.held_out_loss is not None]
        if cell.trajectory and [(p.step, p.narrow_loss) for p in cell.trajectory] != measured:
            raise UserError(f"{CELL} says another trajectory than its run's log")
