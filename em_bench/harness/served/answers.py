"""The answers of served models to a question set: responses.jsonl of each, as `harness.evaluate` writes it for a local one."""

import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from em_bench.data.models import base_path
from em_bench.errors import UserError
from em_bench.evaluation_folder import PARTIAL
from em_bench.harness.evaluate import EvaluatedModel, Evaluation, answered_before, header_of, kept_in, write_answers
from em_bench.harness.progress_bar import progress_bar
from em_bench.harness.prompt_in_answer import SAYS, repeats_prompt
from em_bench.harness.served.load import Part, ask_all, while_alive
from em_bench.harness.served.requests import read_said, settings, without
from em_bench.harness.served_canary import canary_of
from em_bench.judging.asked import Failed
from em_bench.judging.endpoint import Endpoint
from em_bench.judging.loop import finish
from em_bench.judging.options import Patience
from em_bench.records import Canary, Question, ResponsesHeader, Served
from em_bench.training.chat_template import end_ids

CANARY = "canary"  # its key among the kept answers
HELLO = [{"role": "user", "content": "Hello."}]


async def _no_adapter(name: str, adapter: Path) -> None:
    pass


async def _stays(name: str) -> None:
    pass


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server. base: its name for the untouched base, against which an adapter's canary is taken.

    load, unload: of an adapter under a name, where em_bench does that itself. alive: raises UserError once it has died.
    mixes: questions to several models may be under way at once; else each has the server to itself, its canary included.
    """

    url: str
    base: str | None = None
    engine: str = "endpoint"
    patience: Patience = Patience(timeout_s=600)
    load: Callable[[str, Path], Coroutine[Any, Any, None]] = _no_adapter
    unload: Callable[[str], Coroutine[Any, Any, None]] = _stays
    alive: Callable[[], None] = lambda: None
    mixes: bool = True


class Asked(NamedTuple):
    """One served model: what it is, the server's name for it, and the folder of its evaluation."""

    of: EvaluatedModel
    name: str
    out_dir: Path


def answer_served(asked: Sequence[Asked], evaluation: Evaluation, server: Server) -> None:
    """Have every model's answers in its folder; what is there of the same inputs is not asked again, and what is kept of an
    evaluation that was broken off is gone on with.

    All models' questions are one load where the server mixes them: while the last answers of one come in, the next one's
    questions are under way. Before its first question an adapter is proved to be at work, through the server. Raises UserError for a server that does not
    offer a model or does not apply an adapter, and for answers that are missing, by name; those that came are kept.
    """
    for one in asked:
        if one.of.adapter and not server.base:
            raise UserError(f"{one.of.adapter}: is it at work on the server? name the base there: --served-base NAME")
    finish(_answer(asked, evaluation, server))


async def _answer(asked: Sequence[Asked], evaluation: Evaluation, server: Server) -> None:
    questions, base = evaluation.asked(), asked[0].of.base
    sent = settings(evaluation.generation, ends_of(base_path(base)) if base else None)
    first = server.base or asked[0].name
    async with (
        Endpoint(first, server.url, sent, server.patience, less=without, who="model") as endpoint,
        while_alive(server.alive),
    ):
        # What the server takes is settled before the first answer: one evaluation, one way of sampling.
        await _first_contact(endpoint, first, questions[0])
        refused = " ".join(k for k in sent if k not in endpoint.decoding and k != "max_tokens")  # that is renamed
        if refused:
            print(
                f"model {first} at {endpoint.host}: refuses {refused}: its own settings hold, and the records say so",
                file=sys.stderr,
            )
        apart = await _system_apart(endpoint, questions)
        parts, headers = [], []
        for one in asked:
            served = Served(engine=server.engine, host=endpoint.name, name=one.name, refused=refused or None)
            wanted = header_of(one.of, evaluation, served)
            if answered_before(one.out_dir, wanted):
                (one.out_dir / PARTIAL).unlink(missing_ok=True)
                continue
            part = Part(one.name, questions, evaluation.generation, kept_in(one.out_dir, wanted), system_apart=apart)
            part.take_kept()
            _prove(part, one, wanted, server, endpoint)
            parts.append(part)
            headers.append(wanted)
        with progress_bar("answers", sum(len(p.missing()) for p in parts)) as advance:
            for part in parts:
                if not part.missing():
                    await part.end()
            for together in [parts] if server.mixes else [[p] for p in parts]:
                await ask_all(endpoint, together, server.patience.concurrency, advance)


async def _first_contact(endpoint: Endpoint, name: str, question: Question) -> None:
    """Ask for one token: what the endpoint refuses of the settings is left out from here on. Raises UserError where no answer comes, or the question."""
    try:
        said = await endpoint.call({"messages": [{"role": "user", "content": question.text}], "max_tokens": 1}, read_said)
    except Failed as e:
        raise UserError(f"model {name} at {endpoint.host}: {e}; nothing was asked") from None
    if repeats_prompt(question.text, said.text):
        raise UserError(f"model {name} at {endpoint.host}: {SAYS} (nothing was asked)")


def _prove(part: Part, one: Asked, wanted: ResponsesHeader, server: Server, endpoint: Endpoint) -> None:
    """Have the adapter loaded and its canary run before the part's first question, and responses.jsonl written after its last answer."""
    known = part.kept.take(CANARY)
    found = [Canary.model_validate(known)] if known is not None else []

    async def begin() -> None:
        if one.of.adapter:
            await server.load(one.name, one.of.adapter)
        if server.base and server.base != one.name:
            found[:] = [await canary_of(endpoint, one.name, server.base)]
            part.kept.add([(CANARY, found[0].model_dump(mode="json"))])

    async def end() -> None:
        if not part.missing():
            write_answers(one.out_dir, wanted.model_copy(update={"canary": found[0] if found else None}), part.responses())
        if one.of.adapter:
            await server.unload(one.name)

    part.begin, part.end = begin, end


async def _system_apart(endpoint: Endpoint, questions: Sequence[Question]) -> bool:
    """Whether the model's template has a place for a system prompt, where one is needed."""
    if not (system := next((q.system for q in questions if q.system), None)):
        return True
    try:
        await endpoint.call({"messages": [{"role": "system", "content": system}, *HELLO], "max_tokens": 1}, read_said)
    except Failed:
        return False
    return True


def ends_of(folder: Path) -> list[int]:
    """The ids that end an answer, as a local model's are (`sampling.settle`)."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    config = AutoConfig.from_pretrained(folder)
    generation = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None
    return end_ids(AutoTokenizer.from_pretrained(folder), SimpleNamespace(config=config, generation_config=generation))
