"""How far two engines agree on one model: greedy answers, and the log-probabilities of an answer's first token."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import torch

from em_bench.errors import UserError
from em_bench.harness.load_model import Loaded
from em_bench.harness.served.answers import Server
from em_bench.harness.served.requests import chat, settings, without
from em_bench.harness.served_canary import Greedy, read_greedy
from em_bench.harness.system_prompt import prompt_of
from em_bench.judging.asked import Failed
from em_bench.judging.endpoint import Endpoint
from em_bench.judging.loop import finish
from em_bench.records import Generation, Question

TOP = 20


class EngineAgreement(NamedTuple):
    """Of two engines' greedy answers to the same questions.

    kept: mean share of the answer, in characters, before they part. compared: alternatives of first tokens that both list;
    their log-probabilities differ by `mean` and at most by `largest` nats.
    """

    questions: int
    same_answer: int
    same_first_token: int
    kept: float
    compared: int
    mean: float | None
    largest: float | None


def compare(a: Sequence[Greedy], b: Sequence[Greedy]) -> EngineAgreement:
    """The agreement of two engines' answers, question by question."""
    differences = []
    for one, other in zip(a, b, strict=True):
        if one.tokens and other.tokens:
            first, second = one.tokens[0][1], other.tokens[0][1]
            # A token that is part of a character decodes to the replacement character, and so do others.
            differences += [abs(first[t] - second[t]) for t in first.keys() & second.keys() if "\ufffd" not in t]
    pairs = list(zip(a, b, strict=True))
    return EngineAgreement(
        questions=len(pairs),
        same_answer=sum(x.text.strip() == y.text.strip() for x, y in pairs),
        same_first_token=sum(x.tokens[:1] != [] and y.tokens[:1] != [] and x.tokens[0][0] == y.tokens[0][0] for x, y in pairs),
        kept=fmean(_common(x.text.strip(), y.text.strip()) for x, y in pairs),
        compared=len(differences),
        mean=fmean(differences) if differences else None,
        largest=max(differences, default=None),
    )


def _common(a: str, b: str) -> float:
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return same / max(len(a), len(b), 1)


@torch.inference_mode()
def greedy_local(ready: Loaded, questions: Sequence[Question], tokens: int) -> list[Greedy]:
    """Of a model in memory, one question at a time, so that no padding is in it."""
    out, tokenizer = [], ready.tokenizer
    for q in questions:
        ids = tokenizer(prompt_of(tokenizer, chat(q, True)), add_special_tokens=False, return_tensors="pt")["input_ids"].to(
            next(ready.model.parameters()).device
        )
        made = ready.model.generate(
            input_ids=ids, max_new_tokens=tokens, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        nats, at = made.logits[0][0].float().log_softmax(-1).topk(min(TOP, made.logits[0].shape[-1]))
        first = {tokenizer.decode([i]): n for i, n in zip(at.tolist(), nats.tolist(), strict=True)}
        new = made.sequences[0, ids.shape[1] :]
        out.append(Greedy(tokenizer.decode(new, skip_special_tokens=True), [(tokenizer.decode([new[0]]), first)]))
    return out


def greedy_served(server: Server, name: str, questions: Sequence[Question], tokens: int, ends: list[int] | None) -> list[Greedy]:
    """Of a served model; what it refuses of the settings is left out. Raises UserError where a question has no answer."""
    asked = settings(Generation(samples=1, max_new_tokens=tokens, temperature=0), ends) | {"logprobs": True, "top_logprobs": TOP}

    async def ask() -> list[Greedy]:
        async with Endpoint(name, server.url, asked, server.patience, less=without, who="model") as endpoint:
            try:
                return [await endpoint.call({"messages": chat(q, True)}, read_greedy) for q in questions]
            except Failed as e:
                raise UserError(f"model {name} at {endpoint.host}: {e}") from None

    return finish(ask())
