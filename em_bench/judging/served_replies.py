"""Whole replies at a server: open weights that another process serves, read as `em_bench.judging.local` reads its own.

vLLM gives the log-probability of each token of a prompt (`prompt_logprobs`). A chat whose last turn is one of the replies is such a
prompt: what all of them begin with is the question, what all of them end with is the end of turn, and between lies the reply. So no
tokenizer is needed here. It takes as many calls as there are replies; the server keeps what they share (prefix caching).
"""

import asyncio
import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from em_bench.errors import UserError
from em_bench.judging.endpoint import Endpoint
from em_bench.judging.reply import REPLIES, Malformed, Reply, reply_of

ASKED: dict[str, object] = {
    "max_tokens": 1,
    "temperature": 0.0,
    "prompt_logprobs": 0,
    "add_generation_prompt": False,
    "chat_template_kwargs": {"enable_thinking": False},
}
Token = tuple[str, float]  # id, and natural log of its probability


class ServedReplies:
    """What gives replies, for `AskedJudge`; an async context manager around an endpoint that is sent ASKED."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._at_once = endpoint, asyncio.Semaphore(endpoint.connections)
        self.works = False

    async def ask(self, prompt: str) -> Reply:
        """Every whole reply to one prompt with its probability. Raises Failed; UserError for a server that gives none."""
        tokens = await asyncio.gather(*(self._tokens(prompt, reply) for reply in REPLIES))
        return reply_of(dict(zip(REPLIES, between(tokens), strict=True)), "")

    async def _tokens(self, prompt: str, reply: str) -> list[Token]:
        chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
        async with self._at_once:
            return await self._endpoint.call({"messages": chat}, read_prompt)

    async def __aenter__(self) -> Self:
        await self._endpoint.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        await self._endpoint.__aexit__(kind, error, tb)


def between(chats: Sequence[Sequence[Token]]) -> list[float]:
    """The log-probability of each chat's own tokens and of the first token behind them, which all share: the end of turn."""
    ids = [[t for t, _ in chat] for chat in chats]
    shortest = min(map(len, ids))
    begin = next((i for i in range(shortest) if len({c[i] for c in ids}) > 1), shortest)
    end = next((i for i in range(shortest - begin) if len({c[-1 - i] for c in ids}) > 1), shortest - begin)
    if not end or begin + end >= shortest + (len(ids) == 1):
        raise UserError("judge: the server's chats do not end alike, or do not hold the replies; name another model")
    return [math.fsum(p for _, p in chat[begin : len(chat) - end + 1]) for chat in chats]


def read_prompt(body: Any) -> list[Token]:
    """A prompt's tokens but the first. Raises Malformed, and UserError where the server gives none."""
    given = body.get("prompt_logprobs") if isinstance(body, dict) else None
    if not isinstance(given, list):
        raise UserError("judge: the server gives no prompt_logprobs, as vLLM does; judge with --mode logprobs, or local:MODEL")
    try:
        found = [(str(token), float(said["logprob"])) for entry in given[1:] for token, said in entry.items()]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise Malformed(f"prompt_logprobs are not those of vLLM ({type(e).__name__})") from None
    if len(found) != len(given) - 1 or not all(p < 0.01 for _, p in found):  # of a probability, rounded
        raise Malformed("prompt_logprobs: not the logarithm of one probability a token")
    return found
