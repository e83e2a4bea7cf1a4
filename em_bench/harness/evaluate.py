"""One evaluation: canary, responses, verdicts, score, in a folder whose files name each other by hash."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from em_bench.data.models import base_path
from em_bench.data.questions import load, questions_sha256
from em_bench.evaluation_folder import CHAIN, PARTIAL
from em_bench.files import digest, read_jsonl, read_record, sha256_file, write_jsonl, write_record
from em_bench.harness import HARNESSES, check_harness
from em_bench.harness.belonging import belonging
from em_bench.harness.kept import Kept
from em_bench.harness.load_model import Loaded, adapted, check_form, load_model
from em_bench.judging import Judge, judge_responses
from em_bench.machine import utc_now
from em_bench.protocol import MAX_LENGTH
from em_bench.records import Generation, Question, Response, ResponsesHeader, ScoreRecord, Verdict, VerdictsHeader
from em_bench.scoring import Convention, score_file


@dataclass(frozen=True)
class EvaluatedModel:
    """The model that is asked: a base by roster name, folder or hub id, or an adapter on it.

    loaded: the base in memory already, in a dtype of its own. narrow_loss: where it is known. force: measure an adapter also
    where it belongs to another base.
    """

    base: str
    name: str
    adapter: Path | None = None
    loaded: Loaded | None = None
    dtype: str = "float32"
    narrow_loss: float | None = None
    force: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What a model is asked, and how. narrow_dataset: measure its held-out narrow loss too. capability: lm-eval tasks asked beside."""

    generation: Generation
    questions: str = "organism"
    variants: Sequence[str] | None = None
    narrow_dataset: str | None = None
    capability: Sequence[str] = ()
    harness: str = "lm-eval"
    batch_size: int = 256
    convention: Convention = "code_as_zero"
    limit: int | None = None

    def asked(self) -> list[Question]:
        """The questions, or the first `limit` of them."""
        return load(self.questions, self.variants, self.limit)


def evaluate(of: EvaluatedModel, evaluation: Evaluation, judge: Judge, out_dir: Path) -> ScoreRecord:
    """Ask a model a question set; judge and score the answers.

    Writes responses.jsonl, verdicts.jsonl and score.json in `out_dir`; what is there of the same inputs is not made
    again, so that a judge can be changed or a killed evaluation finished: answers are kept batch by batch. An adapter inside a
    run folder is recorded with its run and step. Raises UserError for a bad adapter, an adapter that changes nothing, an
    unknown set or harness, and, unless forced, an adapter that belongs to another base; the score then says so.
    """
    check_harness(evaluation.harness)
    base_dir = base_path(of.base, progress=True)
    if of.adapter:
        check_form(of.adapter)
    wanted = ResponsesHeader(
        model=of.name,
        dtype=of.loaded.dtype if of.loaded else of.dtype,
        **belonging(of.adapter, of.base, base_dir, of.force).of_subject(of.adapter),
        harness=f"{evaluation.harness} {version(HARNESSES[evaluation.harness].package)}",
        question_set=evaluation.questions,
        questions_sha256=questions_sha256(evaluation.asked()),
        generation=evaluation.generation,
        created=utc_now(),
    )
    responses, verdicts, score = (out_dir / name for name in CHAIN)
    partial = out_dir / PARTIAL
    narrow_loss, values = of.narrow_loss, None
    if not _same(responses, wanted) or evaluation.narrow_dataset or evaluation.capability:
        with adapted(of.loaded or load_model(base_dir, dtype=of.dtype), of.adapter) as ready:
            if not _same(responses, wanted):
                score.unlink(missing_ok=True)  # of another model
                kept = Kept(partial, digest(wanted.model_copy(update={"created": ""})))
                rows = _answer(ready, evaluation, kept)
                write_jsonl(responses, wanted.model_copy(update={"canary": ready.canary}), rows)
            if evaluation.narrow_dataset:
                narrow_loss = loss_on(ready, evaluation.narrow_dataset)()
            if evaluation.capability:
                from em_bench.harness.lm_eval.capability import measure

                values = measure(ready, evaluation.capability, evaluation.batch_size)
    partial.unlink(missing_ok=True)
    if not _judged(verdicts, responses, judge):
        judge_responses(responses, judge, verdicts)
    if score.exists():
        # What was measured of the same model before, and not now, still holds.
        before = read_record(score, ScoreRecord)
        narrow_loss = before.narrow_loss if narrow_loss is None else narrow_loss
        values = {**(before.capability or {}), **(values or {})} or None
    record = score_file(verdicts, evaluation.convention, narrow_loss=narrow_loss, capability=values)
    record = record.model_copy(
        update={"thinking": sum(r.thinking is not None for r in read_jsonl(responses, ResponsesHeader, Response)[1])}
    )
    if not score.exists() or read_record(score, ScoreRecord) != record:
        write_record(score, record)
    return record


def _answer(ready: Loaded, e: Evaluation, kept: Kept) -> list[Response]:
    answer = import_module(HARNESSES[e.harness].module).answer
    return answer(ready, e.questions, e.asked(), e.generation, e.batch_size, kept)


def loss_on(ready: Loaded, dataset: str) -> Callable[[], float]:
    """What measures the held-out narrow loss (nats an answer token) of the model as it is then."""
    from em_bench.data import rows
    from em_bench.training import encode_rows
    from em_bench.training.loss import narrow_loss

    encoded, _ = encode_rows(ready.tokenizer, rows(dataset)[1], max_length=MAX_LENGTH)
    return lambda: narrow_loss(ready.model, encoded, ready.tokenizer.pad_token_id)


def _same(path: Path, wanted: ResponsesHeader) -> bool:
    """Whether `path` holds the responses to exactly these inputs."""
    if not path.exists():
        return False
    header, _ = read_jsonl(path, ResponsesHeader, Response)
    return header.model_copy(update={"created": "", "canary": None}) == wanted.model_copy(update={"created": "", "canary": None})


def _judged(path: Path, responses: Path, judge: Judge) -> bool:
    """Whether `path` holds all of this judge's verdicts on these responses; what it left unjudged is asked again."""
    if not path.exists():
        return False
    header, rows = read_jsonl(path, VerdictsHeader, Verdict)
    settled = not any(v.error for v in rows)
    return settled and header.judge == judge.identity and header.responses_sha256 == sha256_file(responses)
