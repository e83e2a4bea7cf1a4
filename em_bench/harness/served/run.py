"""Evaluations through a server: one that is there already, or a vLLM of our own that is gone before a judge is asked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from em_bench.adapter_file import WEIGHTS
from em_bench.data.models import base_path
from em_bench.errors import UserError
from em_bench.files import sha256_file
from em_bench.harness.belonging import belonging, check_form
from em_bench.harness.evaluate import EvaluatedModel, Evaluation, answered_before, header_of, judged
from em_bench.harness.served.answers import Asked, Server, answer_served
from em_bench.harness.served.vllm import BASE, Engine, find_vllm, vllm_server
from em_bench.judging import Judge
from em_bench.judging.loop import finish
from em_bench.records import ScoreRecord, Served

LOG = "vllm.log"


def evaluate_served(asked: Asked, evaluation: Evaluation, judge: Judge, server: Server) -> ScoreRecord:
    """Ask a served model a question set; judge and score its answers, as `harness.evaluate.evaluate` does of a local one."""
    _refuse_weights(asked.of, evaluation)
    answer_served([asked], evaluation, server)
    values = _capability(asked, evaluation, server) if evaluation.capability else None
    return judged(asked.out_dir, judge, evaluation, asked.of.narrow_loss, values)


def evaluate_with_vllm(
    of: EvaluatedModel, evaluation: Evaluation, judge: Judge, out_dir: Path, python: Path | None, at_once: int
) -> ScoreRecord:
    """The same through a vLLM server of our own, which has ended when the judge is asked."""
    _refuse_weights(of, evaluation)
    values = answer_with_vllm([(of, out_dir)], evaluation, python, torch.cuda.device_count(), at_once)
    return judged(out_dir, judge, evaluation, of.narrow_loss, values.get(out_dir))


def answer_with_vllm(
    models: Sequence[tuple[EvaluatedModel, Path]],
    evaluation: Evaluation,
    python: Path | None,
    gpus: int = 0,
    at_once: int = 64,
    log: Path | None = None,
) -> dict[Path, dict[str, float]]:
    """Have the answers of a base and of adapters on it in their folders, from one vLLM server that ends with the call.

    log: of the server; by default beside the first folder's answers. Returns capability by folder, where it is asked for. Raises UserError where it
    does not start or dies, with the end of its log; what was answered is kept.
    """
    (first, at), *_ = models
    for of, _ in models:
        if of.adapter:
            check_form(of.adapter)
    found, version = find_vllm(python)
    folder = base_path(first.base, progress=True)
    engine = Engine(found, version, log or at / LOG, first.dtype, gpus, at_once)
    asked = [Asked(of, name_of(of.adapter) if of.adapter else BASE, out) for of, out in models]
    if not evaluation.capability and all(_answered(one, evaluation, f"vllm {version}") for one in asked):
        return {}
    with vllm_server(folder, [of.adapter for of, _ in models if of.adapter], engine) as server:
        answer_served(asked, evaluation, server)
        if not evaluation.capability:
            return {}
        return {one.out_dir: _capability(one, evaluation, server) for one in asked}


@contextmanager
def running_vllm(
    base: str, adapters: Sequence[Path], dtype: str, python: Path | None, log: Path = Path("em_bench_work", LOG)
) -> Iterator[tuple[Server, list[str]]]:
    """A vLLM server of a base with these adapters loaded, and its names for them; for the base where there are none."""
    found, version = find_vllm(python)
    folder = base_path(base, progress=True)
    for adapter in adapters:
        check_form(adapter)
        belonging(adapter, base, folder)
    with vllm_server(folder, adapters, Engine(found, version, log, dtype, torch.cuda.device_count())) as server:
        names = [name_of(a) for a in adapters]
        for name, adapter in zip(names, adapters, strict=True):
            finish(server.load(name, adapter))
        yield server, names or [BASE]


def name_of(adapter: Path) -> str:
    """Under which our servers offer it: by its weights."""
    return sha256_file(adapter / WEIGHTS)[:16]


def _answered(one: Asked, evaluation: Evaluation, engine: str) -> bool:
    served = Served(engine=engine, host="local", name=one.name)
    return answered_before(one.out_dir, header_of(one.of, evaluation, served))


def _refuse_weights(of: EvaluatedModel, evaluation: Evaluation) -> None:
    if evaluation.narrow_dataset:
        raise UserError("--narrow: needs the weights; leave --server away, or measure it from the run (em-bench runs)")
    if evaluation.capability and not of.base:
        raise UserError("--capability: needs the model's tokenizer; name the model before --server")


def _capability(asked: Asked, evaluation: Evaluation, server: Server) -> dict[str, float]:
    from em_bench.harness.lm_eval.capability import measure, served

    tokenizer = base_path(asked.of.base)
    if asked.of.adapter:
        finish(server.load(asked.name, asked.of.adapter))
    try:
        return measure(served(server.url, asked.name, tokenizer, server.patience.concurrency), evaluation.capability)
    except UserError:
        raise
    except Exception as e:  # whatever lm-eval makes of a server without the log-probabilities of a prompt
        raise UserError(
            f"--capability: {server.url} gives no log-probabilities of a prompt, or breaks off ({type(e).__name__}: {str(e)[:200]}); "
            "the answers are kept: leave it away, or use --engine vllm"
        ) from None
