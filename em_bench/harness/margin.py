"""The margin of a base or an adapter on it: given answers, no sampling, no judge; the base and a control are measured beside it."""

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from em_bench.data.models import base_path
from em_bench.data.questions import answered, neutral_texts, questions_sha256
from em_bench.evaluation_folder import MARGIN_SCORE, MARGINS, EvaluationFolder
from em_bench.files import cache_dir, digest, read_jsonl, write_jsonl, write_record
from em_bench.harness.answer_logprobs import answer_logprobs, text_logprobs
from em_bench.harness.belonging import belonging, check_form
from em_bench.harness.evaluate import EvaluatedModel
from em_bench.harness.load_model import Loaded, adapted, load_model
from em_bench.harness.progress_bar import progress_bar
from em_bench.machine import machine, utc_now
from em_bench.records import AnsweredQuestion, AnswerLogprob, MarginHeader, MarginRole, MarginScore
from em_bench.scoring import score_margin


def measure_margin(
    of: EvaluatedModel,
    out_dir: Path,
    *,
    question_set: str = "em_core",
    per_domain: int | None = None,
    answers: int | None = None,
    control: Path | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> MarginScore:
    """Measure the margin of a base or of an adapter on it, and its shift; `control` is an adapter trained on good data.
    `per_domain` and `answers` take the first so many questions of a domain and answers of a side.

    Writes margin.jsonl, margin-base.jsonl, margin-control.jsonl and margin.json in `out_dir`; what is there of the same
    inputs is not measured again, and a base's is kept in the cache for all its adapters. Raises UserError for a set without answers, a base whose chat template
    does not show where an answer ends, a bad adapter, one that changes nothing, and, unless `force`, one of another base.
    """
    questions, texts = answered(question_set, per_domain, answers), neutral_texts()
    adapters: dict[MarginRole, Path | None] = {"base": None, "control": control, "model": of.adapter}
    wanted = {role: a for role, a in adapters.items() if a or role == "model" or (role == "base" and of.adapter)}
    for a in filter(None, wanted.values()):
        check_form(a)
    base_dir = base_path(of.base, progress=True)
    owners = {role: belonging(a, of.base, base_dir, of.force) for role, a in wanted.items()}
    # An adapter's run knows a base that is given as a folder by its own name: one base has one name in all files.
    named = next((o.base for o in owners.values() if o.run_id), owners["model"].base)
    headers = {
        role: MarginHeader(
            model=of.name,
            dtype=of.loaded.dtype if of.loaded else of.dtype,
            **owners[role]._replace(base=named).of_subject(a),
            harness=f"em_bench {version('em-bench')}",
            question_set=question_set,
            questions_sha256=questions_sha256(questions),
            neutral_sha256=digest(texts),
            machine=machine(),
            created=utc_now(),
        )
        for role, a in wanted.items()
    }
    folder = EvaluationFolder(out_dir)
    missing = []
    for role, header in headers.items():
        if not _same(folder.margin_file(role), header) and not _from_cache(folder.margin_file(role), header):
            missing.append(role)
    if missing:
        ready = of.loaded or load_model(base_dir, dtype=of.dtype, device=of.device)
        total = sum(len(q.aligned) + len(q.misaligned) for q in questions)
        with progress_bar("answers read", total * len(missing), progress) as step:
            for role in missing:
                with adapted(ready, wanted[role]) as at_work:
                    _measure(folder.margin_file(role), headers[role], at_work, questions, texts, batch_size, step)
    for role in set(MARGINS) - set(wanted):
        folder.margin_file(role).unlink(missing_ok=True)
    score = score_margin(folder)
    if not (folder.path / MARGIN_SCORE).exists() or folder.margin_score() != score:
        write_record(folder.path / MARGIN_SCORE, score)
    return score


def _measure(
    path: Path,
    header: MarginHeader,
    ready: Loaded,
    questions: list[AnsweredQuestion],
    texts: dict[str, str],
    batch_size: int,
    step: Callable[[int], None],
) -> None:
    rows = answer_logprobs(ready, questions, batch_size, step)
    neutral = text_logprobs(ready, texts)
    write_jsonl(path, header.model_copy(update={"canary": ready.canary, "neutral": tuple(neutral)}), rows)
    if header.adapter_sha256 is None:
        kept = _cached(header)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(kept, *read_jsonl(path, MarginHeader, AnswerLogprob))


def _from_cache(path: Path, header: MarginHeader) -> bool:
    """Take the base's from the cache where it is there."""
    if header.adapter_sha256 is not None or not _same(kept := _cached(header), header):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kept, path)
    return True


def _cached(header: MarginHeader) -> Path:
    m = header.machine
    computed = [m.packages.get("torch"), m.packages.get("transformers"), m.cpu, m.gpu]
    return cache_dir() / "margin" / f"{digest([_identity(header), computed])}.jsonl"


def _identity(header: MarginHeader) -> dict:
    """What determines the measurement, without what came out or where."""
    return header.model_dump(mode="json", exclude={"created", "canary", "neutral", "machine", "model"})


def _same(path: Path, header: MarginHeader) -> bool:
    return path.exists() and _identity(read_jsonl(path, MarginHeader, AnswerLogprob)[0]) == _identity(header)
