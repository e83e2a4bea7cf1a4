"""A run or an entry as an adapter repository of the hub, and back. Rows and answers never leave: what is uploaded is listed here."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from em_bench.adapter_file import load_run_adapter, read_config
from em_bench.board.benchmark import load_benchmark
from em_bench.board.entry import MANIFEST as ENTRY_MANIFEST
from em_bench.board.entry import RESULTS, Entry
from em_bench.board.score import score_entry
from em_bench.board.submission import FILE as SUBMISSION
from em_bench.errors import UserError
from em_bench.files import atomic_folder, write_text
from em_bench.hub.card import PLOT, entry_card, eval_results, model_card
from em_bench.hub.card import RESULTS as EVAL_RESULTS
from em_bench.hub.numbers import default_evaluations, judged_of, margins_of, numbers
from em_bench.line import one_line
from em_bench.run_folder import ADAPTER, CONFIG, LOG, RECORD, RUNS, WEIGHTS, RunFolder
from em_bench.verify.chain import verify_run

README = "README.md"
FILES = (RECORD, LOG, CONFIG, WEIGHTS)  # of a run: all that a pull asks for
TOKEN = "check the name, the network, and your token (`hf auth login`, or HF_TOKEN)"


def stage(target: Path, out: Path, *, name: str = "", evaluations: Path | None = None, questions_at: str | None = None) -> None:
    """Write the repository of a run folder, or of an entry's, into the empty folder `out`.

    evaluations: where those of the run are looked for. questions_at: the hub's data set of em_core, without which there is no
    `.eval_results`. Raises UserError for a folder that is neither, and for a run whose files do not belong together.
    """
    if (target / SUBMISSION).is_file():
        _stage_entry(target, out, name or target.name)
    elif RunFolder(target).complete:
        _stage_run(RunFolder(target), out, name or target.name, evaluations or default_evaluations(target), questions_at)
    else:
        raise UserError(f"{target}: neither a run ({RECORD}) nor an entry ({SUBMISSION}); name a folder of one")


def _stage_run(run: RunFolder, out: Path, name: str, evaluations: Path, questions_at: str | None) -> None:
    _refuse_broken(run.path)
    record = run.record()
    _copy_run(run, out)
    if record.spectral:
        from em_bench.spectral import layer_spectra, lora_pairs
        from em_bench.training.plots import draw_spectrum

        pairs = lora_pairs(load_run_adapter(run.weights(), record.expert_rank), scale=record.spec.lora.scale)
        draw_spectrum(layer_spectra(pairs), out / PLOT)
    judged = judged_of(record, evaluations)
    found = numbers(run, judged)
    for j in judged:
        write_text(out / "scores" / f"{j.at.path.name}.json", j.at.score_file.read_text(encoding="utf-8"))
    write_text(out / README, model_card(record, found, margins_of(record, evaluations), name))
    if questions_at and (results := eval_results(found, questions_at)):
        write_text(out / EVAL_RESULTS, results)


def _stage_entry(folder: Path, out: Path, name: str) -> None:
    entry = Entry(folder)
    rules = load_benchmark(entry.submission.benchmark, folder.parent.parent / "benchmark")
    held = sorted({run_id for run_id, step in entry.packed.adapters.index if step is None})
    if not held:
        raise UserError(f"{folder}: holds no adapter at the end of training, so there is nothing to push; push its runs")
    with TemporaryDirectory(prefix="em-bench-push-") as scratch:
        entry.packed.unpack(Path(scratch))
        for run_id in held:
            _copy_run(RunFolder(Path(scratch) / RUNS / run_id), out / RUNS / run_id)
    shutil.copyfile(folder / SUBMISSION, out / SUBMISSION)
    shutil.copyfile(folder / RESULTS / ENTRY_MANIFEST, out / ENTRY_MANIFEST)
    score = score_entry(entry, rules.tiers[entry.submission.tier]).score
    write_text(out / README, entry_card(entry.submission, score, held, name))


def _copy_run(run: RunFolder, out: Path) -> None:
    """The files of a run as a repository has them: PEFT looks for an adapter where its README is."""
    record = run.record()
    for file in (run.record_file, run.log_file, run.weights()):
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / file.name)
    config = read_config(run.adapter())
    if record.spec.base.source == "path":
        config = {**config, "base_model_name_or_path": record.spec.base.name}  # a folder of one machine says nothing elsewhere
    write_text(out / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")


def push(folder: Path, repository: str, *, private: bool, revision: str | None = None) -> str:
    """Upload a staged folder; returns its address. Raises UserError where the hub refuses."""
    from huggingface_hub import HfApi

    api = HfApi()
    with _said(repository):
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, revision=revision, commit_message="em-bench push", delete_patterns=None
        )
    return done.commit_url


def pull(repository: str, to: Path, revision: str | None = None, told: Callable[[str], None] = lambda text: None) -> list[Path]:
    """Fetch every run of a repository that `push` filled into TO/RUN_ID, each proven by its own hashes; returns their folders.

    What is there already stays. Raises UserError where the hub refuses, where there is no run, and for one that does not hold
    together, of which nothing is kept.
    """
    from huggingface_hub import HfApi

    wanted = [*FILES, *(f"{RUNS}/*/{name}" for name in FILES)]
    to.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".pull-", dir=to) as scratch:
        with _said(repository):
            HfApi().snapshot_download(repository, revision=revision, allow_patterns=wanted, local_dir=scratch)
        found = [p.parent for p in sorted(Path(scratch).rglob(RECORD))]
        if not found:
            raise UserError(
                f"{repository}: holds no {RECORD}, so it was not made by em-bench push; `em-bench evaluate` takes any adapter"
            )
        return [_take(at, to, repository, told) for at in found]


def _take(at: Path, to: Path, repository: str, told: Callable[[str], None]) -> Path:
    run_id = RunFolder(at).record().run_id
    if (to / run_id).exists():
        told(f"{to / run_id}: is there already")
        return to / run_id
    with atomic_folder(to / run_id) as made:
        for name in FILES:
            if not (at / name).is_file():
                raise UserError(f"{repository}: {name} is missing")
            place = made / (ADAPTER if name in (CONFIG, WEIGHTS) else "") / name
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(at / name, place)
        _refuse_broken(made, repository, checkpoints=False)
    return to / run_id


def _refuse_broken(run: Path, name: str | None = None, checkpoints: bool = True) -> None:
    left_out = () if checkpoints else ("run.checkpoints",)
    if failed := [c for c in verify_run(run) if not c.passed and c.id not in left_out]:
        raise UserError(f"{name or run}: {failed[0].sentence}: it is not so: {failed[0].detail}")


@contextmanager
def _said(repository: str) -> Iterator[None]:
    """What the hub refuses, in one line."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except HFValidationError:
        raise UserError(f"{repository}: is no name of a repository; write OWNER/NAME") from None
    except (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OSError, ValueError) as e:
        said = one_line(str(e).strip().splitlines()[0] if str(e).strip() else "", 200)
        raise UserError(f"{repository}: the hub cannot be asked, or refuses ({type(e).__name__}: {said}); {TOKEN}") from None


def contents(folder: Path) -> Sequence[str]:
    """What a staged repository holds, by path."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
