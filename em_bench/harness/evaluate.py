"""One evaluation: canary, responses, verdicts, score, in a folder whose files name each other by hash."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from em_bench.data.models import base_path
from em_bench.data.questions import clusters, load, questions_sha256
from em_bench.evaluation_folder import CHAIN, PARTIAL, RESPONSES, SCORE
from em_bench.files import digest, read_jsonl, read_record, sha256_file, write_jsonl, write_record
from em_bench.harness import HARNESSES, check_harness
from em_bench.harness.belonging import belonging, check_form
from em_bench.harness.kept import Kept
from em_bench.judging import Judge, judge_responses
from em_bench.machine import utc_now
from em_bench.protocol import MAX_LENGTH
from em_bench.records import Generation, Question, Response, ResponsesHeader, ScoreRecord, Served, Verdict, VerdictsHeader
from em_bench.scoring import Convention, score_file

if TYPE_CHECKING:
    from em_bench.harness.load_model import Loaded


@dataclass(frozen=True)
class EvaluatedModel:
    """The model that is asked: a base by roster name, folder or hub id, or an adapter on it; base is empty for a served one of which no more is known.

    loaded: the base in memory already, in a dtype of its own. narrow_loss: where it is known. force: measure an adapter also
    where it belongs to another base.
    """

    base: str
    name: str
    adapter: Path | None = None
    loaded: "Loaded | None" = None
    dtype: str = "float32"
    narrow_loss: float | None = None
    force: bool = False
    device: str | None = None  # as of `load_model`

    @property
    def title(self) -> str:
        """What a sentence calls it."""
        return f"{self.name} with {self.adapter}" if self.adapter and self.name == self.base else self.name


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
    wanted = header_of(of, evaluation)
    narrow_loss, values = of.narrow_loss, None
    if not answered_before(out_dir, wanted) or evaluation.narrow_dataset or evaluation.capability:
        from em_bench.harness.load_model import adapted, load_model  # torch: not where all is done already

        with adapted(of.loaded or load_model(base_path(of.base), dtype=of.dtype, device=of.device), of.adapter) as ready:
            if not answered_before(out_dir, wanted):
                kept = kept_in(out_dir, wanted)
                write_answers(out_dir, wanted.model_copy(update={"canary": ready.canary}), _answer(ready, evaluation, kept))
            if evaluation.narrow_dataset:
                narrow_loss = loss_on(ready, evaluation.narrow_dataset)()
            if evaluation.capability:
                from em_bench.harness.lm_eval.capability import local, measure

                values = measure(local(ready, evaluation.batch_size), evaluation.capability)
    return judged(out_dir, judge, evaluation, narrow_loss, values)


def header_of(of: EvaluatedModel, evaluation: Evaluation, served: Served | None = None) -> ResponsesHeader:
    """What the responses will say of themselves. Raises UserError for a bad adapter, and one of another base unless forced."""
    if of.adapter:
        check_form(of.adapter)
    return ResponsesHeader(
        model=of.name,
        dtype=of.loaded.dtype if of.loaded else of.dtype or None,
        **(belonging(of.adapter, of.base, base_path(of.base, progress=True), of.force).of_subject(of.adapter) if of.base else {}),
        served=served,
        harness=f"em_bench {version('em-bench')}"
        if served
        else f"{evaluation.harness} {version(HARNESSES[evaluation.harness].package)}",
        question_set=evaluation.questions,
        questions_sha256=questions_sha256(evaluation.asked()),
        generation=evaluation.generation,
        created=utc_now(),
    )


def kept_in(out_dir: Path, wanted: ResponsesHeader) -> Kept:
    """The answers so far to exactly these inputs; a score that is there is of others."""
    (out_dir / SCORE).unlink(missing_ok=True)
    return Kept(out_dir / PARTIAL, digest(wanted.model_copy(update={"created": ""})))


def write_answers(out_dir: Path, header: ResponsesHeader, rows: Sequence[Response]) -> None:
    """responses.jsonl in place of the answers so far."""
    write_jsonl(out_dir / RESPONSES, header, rows)
    (out_dir / PARTIAL).unlink(missing_ok=True)


def judged(
    out_dir: Path,
    judge: Judge,
    evaluation: Evaluation,
    narrow_loss: float | None = None,
    values: dict[str, float] | None = None,
) -> ScoreRecord:
    """Judge and score the answers in a folder, where that is not done; writes verdicts.jsonl and score.json."""
    responses, verdicts, score = (out_dir / name for name in CHAIN)
    if not _judged(verdicts, responses, judge):
        judge_responses(responses, judge, verdicts)
    if score.exists():
        # What was measured of the same model before, and not now, still holds.
        before = read_record(score, ScoreRecord)
        narrow_loss = before.narrow_loss if narrow_loss is None else narrow_loss
        values = {**(before.capability or {}), **(values or {})} or None
    record = score_file(
        verdicts,
        evaluation.convention,
        narrow_loss=narrow_loss,
        capability=values,
        clusters=clusters(evaluation.questions),
    )
    record = record.model_copy(
        update={"thinking": sum(r.thinking is not None for r in read_jsonl(responses, ResponsesHeader, Response)[1])}
    )
    if not score.exists() or read_record(score, ScoreRecord) != record:
        write_record(score, record)
    return record


def _answer(ready: "Loaded", e: Evaluation, kept: Kept) -> list[Response]:
    answer = import_module(HARNESSES[e.harness].module).answer
    return answer(ready, e.questions, e.asked(), e.generation, e.batch_size, kept)


def loss_on(ready: "Loaded", dataset: str) -> Callable[[], float]:
    """What measures the held-out narrow loss (nats an answer token) of the model as it is then."""
    from em_bench.data import rows
    from em_bench.training import encode_rows
    from em_bench.training.loss import narrow_loss

    encoded, _ = encode_rows(ready.tokenizer, rows(dataset)[1], max_length=MAX_LENGTH)
    return lambda: narrow_loss(ready.model, encoded, ready.tokenizer.pad_token_id)


def answered_before(out_dir: Path, wanted: ResponsesHeader) -> bool:
    """Whether a folder holds the responses to exactly these inputs."""
    if not (path := out_dir / RESPONSES).exists():
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
