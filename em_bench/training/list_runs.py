"""The runs in a folder: finished, failed, interrupted, being made."""

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from em_bench.errors import UserError
from em_bench.files import read_record, read_text
from em_bench.records import Record, StepRecord
from em_bench.run_folder import LOG, RECORD, RunFolder
from em_bench.training.health import FILE as FAILED
from em_bench.training.health import Failure

Status = Literal["done", "running", "failed", "interrupted", "unreadable"]


class Listed(Record):
    """One run folder."""

    run_id: str
    status: Status
    folder: str
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    narrow_loss: float | None = None
    wall_s: float | None = None
    problem: str | None = None


def list_runs(folder: Path) -> list[Listed]:
    """Every run under `folder`, by name. Raises UserError where there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the one that `em-bench train --out` was given")
    if RunFolder(folder).complete:
        raise UserError(f"{folder}: is one run; name the folder that holds it, or add --plot FILE.svg to draw it")
    found = [_listed(p.parent, _finished) for p in folder.glob(f"*/{RECORD}")]
    found += [_listed(p, _in_the_making) for p in folder.glob(".*.partial") if p.is_dir()]
    return sorted(found, key=lambda r: r.run_id)


def _listed(folder: Path, read: Callable[[Path], Listed]) -> Listed:
    """One damaged record must not hide the other runs."""
    try:
        return read(folder)
    except UserError as e:
        return Listed(
            run_id=folder.name, status="unreadable", folder=str(folder), problem=f"{e}; remove the folder to make the run again"
        )


def _finished(folder: Path) -> Listed:
    run = RunFolder(folder).record()
    return Listed(
        run_id=run.run_id, status="done", folder=str(folder), step=run.spec.steps, steps=run.spec.steps,
        narrow_loss=run.narrow_loss, loss=_last(folder, "loss"), wall_s=run.wall_s,
    )  # fmt: skip


def _in_the_making(folder: Path) -> Listed:
    name = folder.name.removeprefix(".").removesuffix(".partial")
    said = {"run_id": name, "folder": str(folder), "step": _last(folder, "step"), "loss": _last(folder, "loss")}
    if (folder / FAILED).exists():
        return Listed(status="failed", problem=read_record(folder / FAILED, Failure).reason, **said)
    return Listed(status="running" if _locked(folder) else "interrupted", **said)


def _last(folder: Path, field: str) -> float | None:
    """A field of the last whole line of the log."""
    try:
        lines = read_text(folder / LOG).splitlines()
    except UserError:
        return None
    for line in reversed(lines):
        try:
            return getattr(StepRecord.model_validate_json(line), field)
        except ValidationError:
            continue  # cut short by a kill
    return None


def _locked(folder: Path) -> bool:
    try:
        with open(folder.with_name(folder.name + ".lock")) as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
