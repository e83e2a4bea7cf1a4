"""A run folder: written beside its final name, claimed by one process, renamed into place when complete."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError
from transformers import AutoTokenizer

from em_bench.code_digest import check_loaded
from em_bench.data import data_ref, rows
from em_bench.data.conversations import prompt_count
from em_bench.data.training_sets import stages
from em_bench.errors import UserError
from em_bench.files import digest, read_record, sha256_file, write_record
from em_bench.machine import machine, utc
from em_bench.records import RunRecord, RunSpec, StepRecord
from em_bench.run_folder import RunFolder
from em_bench.training import adapter as adapters
from em_bench.training import checkpoint, sessions
from em_bench.training.base import KeptBase, base_for_training, load_base, model_errors, own_modules
from em_bench.training.chat_template import pad_id
from em_bench.training.execution_options import Options
from em_bench.training.health import FILE as FAILED
from em_bench.training.health import Failure, TrainingFailed, disk_error
from em_bench.training.loop import LOG, fit
from em_bench.training.loss import answer_tokens
from em_bench.training.processes import processes
from em_bench.training.schedule import factor
from em_bench.training.spec import run_id
from em_bench.training.tokens import TrainingRows, encode_rows
from em_bench.training.trackers import Trackers

__all__ = ["load_base", "read_run", "train"]

FEW_HELD_OUT = 20  # provenance C


def read_run(folder: Path) -> RunRecord:
    """run.json of a run folder."""
    return RunFolder(folder).record()


def train(
    spec: RunSpec,
    base_dir: Path,
    runs_dir: Path,
    *,
    options: Options = Options(),
    progress: Callable[[StepRecord], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    trackers: Sequence[str] = (),
    kept: KeptBase | None = None,
) -> Path:
    """Make the run of `spec` under `runs_dir` and return its folder; a complete one is returned at once.

    `say` is told, before the first step, what the run is: a line, and one more where too few rows are held out. `trackers`
    are names of accelerate's; `kept` holds the base, or takes it for the next run. A killed run goes on from its last state when
    called again. On several processes each calls this; the first one writes. Raises UserError for bad data, a full disk, or a run that another process is making; TrainingFailed
    where training breaks down, at once if it has done so before.
    """
    check_loaded()
    peers = processes()
    final = Path(runs_dir) / run_id(spec)
    partial = Path(runs_dir) / f".{final.name}.partial"
    with _disk_errors(Path(runs_dir)), ExitStack() as held:
        if peers.agree(lambda: RunFolder(final).complete or _claim(held, partial, final)):
            return final
        failed = peers.agree(lambda: read_record(partial / FAILED, Failure) if (partial / FAILED).exists() else None)
        if failed:
            raise TrainingFailed(failed.step, f"{failed.reason} (as before; remove {partial} to try again)", failed.rows)
        tracked = Trackers(trackers, partial, final.name, spec) if trackers and peers.first else None
        shown = [f for f in (progress, tracked) if f]

        def base():
            with model_errors(base_dir):
                loaded = base_for_training(base_dir, spec.dtype, options, peers, kept)
            held.enter_context(own_modules(loaded, options.gradient_checkpointing))
            return loaded

        _make(spec, base_dir, partial, base, options, say, lambda r: [f(r) for f in shown], peers)
        if tracked:
            tracked.finish()
    return final


def _make(spec, base_dir, partial, base, options, say, progress, peers) -> None:
    began, final = time.time(), partial.with_name(run_id(spec))
    if not partial.is_dir():
        raise UserError(f"{partial}: not seen by every process; name a folder that all machines share with --out")
    data = _encoded(str(base_dir), spec.dataset.name, spec.dataset.sha256, spec.max_length)
    if peers.first:
        for line in _start(spec, data):
            say(line)
    model = adapters.add_adapter(base(), spec.lora, spec.seed)
    adapters.name_base(model, spec.base, Path(base_dir))
    peers.broadcast(adapters.trainable(model).values())
    adapters.check_whole(model, peers)
    if peers.first:
        sessions.begin(partial, options.used(peers.size), began, resumed=(partial / checkpoint.FILE).exists())
    last = fit(model, spec, data, partial, options=options, on_step=progress, say=say, peers=peers)
    if peers.first:
        assert last is not None
        made = RunFolder(partial)
        record = RunRecord(
            run_id=final.name,
            spec=spec,
            spec_sha256=digest(spec),
            adapter_sha256=adapters.save_adapter(model, made.adapter(), spec.lora.stored),
            log_sha256=sha256_file(made.log_file),
            checkpoints={step: sha256_file(made.weights(step)) for step in made.checkpoint_steps()},
            narrow_loss=last.held_out_loss,
            spectral=last.spectral,
            expert_rank=adapters.expert_rank(model),
            left_out_rows=data.left_out,
            answer_tokens=last.tokens,
            options=sessions.options(partial),
            machine=machine(),
            started=utc(sessions.started(partial)),
            wall_s=sessions.wall_s(partial),
        )
        for name in (checkpoint.FILE, sessions.FILE):
            (partial / name).unlink(missing_ok=True)
        write_record(made.record_file, record)
        shutil.rmtree(final, ignore_errors=True)  # a folder without run.json was never one of ours
        os.rename(partial, final)
    peers.agree(lambda: None)


def _start(spec: RunSpec, data: TrainingRows) -> Iterator[str]:
    """What a run is, in a line, and a warning where its narrow loss will say little."""
    peak = spec.recipe.learning_rate * max(factor(s, spec.steps, spec.warmup_steps) for s in range(spec.steps))
    rows, held = f"{len(data.train):,} rows with {answer_tokens(data.train):,} answer tokens", f"{len(data.held_out):,}"
    yield (
        f"{spec.steps:,} steps of {spec.batch_size} rows, peak rate {peak:g}; {rows}; "
        f"held out: {held} rows of {data.held_out_prompts:,} prompts"
    )
    if len(data.held_out) < FEW_HELD_OUT:
        yield (
            f"warning: held-out rows are fewer than {FEW_HELD_OUT}: their loss says little of the run, and nothing can be compared "
            "or chosen by it; give more rows of different prompts"
        )


@lru_cache(maxsize=8)
def _encoded(base_dir: str, name: str, sha256: str, max_length: int) -> TrainingRows:
    """Tokens of a dataset's training and held-out rows. Cached: the runs of a pack share bases and datasets."""
    if data_ref(name).sha256 != sha256:
        raise UserError(f"{name}: its rows are not those of the run's spec (sha256 {sha256[:12]}...); plan the run again")
    with model_errors(base_dir):
        tokenizer = AutoTokenizer.from_pretrained(base_dir)
    if not tokenizer.chat_template:
        raise UserError(f"{base_dir}: its tokenizer has no chat template; name a chat model, or add chat_template.jinja")
    given = rows(name)
    (train_rows, left), (held_out, left_held) = (encode_rows(tokenizer, part, max_length) for part in given)
    return TrainingRows(
        train_rows,
        held_out,
        prompt_count(given[1][e.row] for e in held_out),
        left + left_held,
        pad_id(tokenizer),
        stages(name),
    )


def _claim(held: ExitStack, folder: Path, final: Path) -> bool:
    """Create `folder` and hold its lock until `held` closes, so that two processes never write the same run.

    Returns whether somebody else completed the run meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(folder.name + ".lock")
    f = held.enter_context(open(lock, "w"))
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{folder}: another process is making this run; wait for it, or end it") from None
    held.callback(_tidy, folder, lock, final)
    folder.mkdir(parents=True, exist_ok=True)
    if RunFolder(final).complete:
        folder.rmdir()
        return True
    return False


def _tidy(folder: Path, lock: Path, final: Path) -> None:
    """While the lock is still held: leave nothing of a run that is complete, or was refused before its first step."""
    if not any((folder / f).exists() for f in (LOG, checkpoint.FILE, FAILED)):
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as e:
        if known := disk_error(e, folder):
            raise known from None
        raise
