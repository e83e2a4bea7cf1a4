"""The judge behind an OpenAI-compatible endpoint: independent questions on each response, each asked once."""

import asyncio
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from em_bench import files
from em_bench.errors import UserError
from em_bench.judging.cache import ReplyCache
from em_bench.judging.endpoint import EARLY, Endpoint, Failed
from em_bench.judging.judge import Judgement, judgement_of
from em_bench.judging.options import JudgeOptions
from em_bench.judging.prompts import Aspect, load_prompts
from em_bench.judging.reply import (
    TOP_LOGPROBS,
    Mode,
    Reply,
    Unsettled,
    WrongMode,
    read_aspect,
    single_digits,
    whole_numbers,
)
from em_bench.judging.request_parameters import difference
from em_bench.records import JudgeIdentity

Ask = tuple[Aspect, str]  # what is asked, and the sha256 of the whole prompt


class OpenAIJudge:
    """Asks a chat model for alignment and coherence, and for leakage where `leak` says what the model was trained on.

    What the endpoint refuses of the settings is left out, said on stderr, and left out of the identity, which then says
    `refused`. Raises UserError for options that do not fit.
    """

    def __init__(self, model: str, options: JudgeOptions = JudgeOptions()) -> None:
        self._options = options
        self._prompts = load_prompts(options.prompts, options.leak)
        self._cache = options.cache or files.cache_dir() / "judge.sqlite"
        self._asked: dict[str, object] = {"temperature": 0.0, "max_tokens": options.max_tokens}
        if options.mode == "logprobs":
            self._asked |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        self._model, self._sent = model, self._asked
        self._send(self._asked)
        self._asked_as = self._paid_by
        if self._cache.is_file():
            with ReplyCache(self._cache) as kept:
                self._send(kept.taken(self._asked_as) or self._asked)

    def _endpoint(self, on_taken: Callable[[dict[str, object]], None] = lambda sent: None) -> Endpoint:
        o = self._options
        return Endpoint(self._model, o.base_url, self._sent, o, max_calls=o.max_calls, on_taken=on_taken)

    def _send(self, sent: dict[str, object]) -> None:
        """Be the judge that is asked with these settings."""
        self._sent = sent
        self._mode: Mode = "logprobs" if "logprobs" in sent else "numeric"
        decoding = {"mode": self._mode, "endpoint": self._endpoint().name, "run": self._options.run, **sent}
        if refused := [k for k in self._asked if sent.get(k) != self._asked[k]]:
            decoding["refused"] = " ".join(refused)
        self.identity = JudgeIdentity(
            kind="openai", model=self._model, prompt_sha256=files.digest(self._prompts.texts), decoding=decoding
        )
        # Not the prompts: what is cached is keyed by the whole text that was sent.
        self._paid_by = files.digest([self._model, decoding])

    def _take(self, cache: ReplyCache, sent: dict[str, object]) -> None:
        """Send less from now on, and say so."""
        read = "; it is read in mode numeric" if self._mode == "logprobs" and "logprobs" not in sent else ""
        said = difference(self._sent, sent)
        print(f"judge {self._model}: the endpoint refuses settings: {said}{read}; the judge's identity says so", file=sys.stderr)
        self._send(sent)
        cache.put_taken(self._asked_as, sent)

    def judge(self, items: Sequence[tuple[str | None, str, str]]) -> list[Judgement]:
        """One judgement for each (system, question, answer), in order. Raises UserError where no call can succeed.

        Every reply is in the cache before its judgement is made, so that a process killed at any moment pays again at
        most for the calls that were under way.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._judge(items))
        with ThreadPoolExecutor(1) as pool:  # called from inside a loop, as in a notebook
            return pool.submit(asyncio.run, self._judge(items)).result()

    async def _judge(self, items: Sequence[tuple[str | None, str, str]]) -> list[Judgement]:
        asks: list[dict[Aspect, Ask]] = [{} for _ in items]
        settled: dict[Ask, float | str | bool | Unsettled | None] = {}  # None: under way
        reader = _Reader(self._model, settled)
        queue = ((i, aspect) for i in range(len(items)) for aspect in self._prompts.texts)

        async def work(endpoint: Endpoint, cache: ReplyCache, advance: Callable[[], None]) -> None:
            # Looks up and asks in one pass: nothing but the prompts under way is in memory.
            for i, aspect in queue:
                _, question, answer = items[i]
                prompt = self._prompts.fill(aspect, question, answer)
                asks[i][aspect] = ask = (aspect, _sha256(prompt))
                if ask not in settled:
                    settled[ask] = None
                    reply = cache.get(self._paid_by, ask[1])
                    if reply is not None:
                        endpoint.works = True
                        reader.read(ask, reply, self._mode)
                        await asyncio.sleep(0)  # a long stretch of known replies must not hold up those that arrive
                    else:
                        try:
                            reply = await endpoint.ask(prompt)
                        except Failed as e:
                            settled[ask] = Unsettled(str(e))
                        else:
                            cache.put(self._paid_by, ask[1], reply)
                            reader.read(ask, reply, self._mode)
                advance()

        total = len(items) * len(self._prompts.texts)
        try:
            with ReplyCache(self._cache) as cache, self._bar(total) as advance:
                taken = partial(self._take, cache)
                async with self._endpoint(taken) as endpoint, asyncio.TaskGroup() as group:
                    for _ in range(min(self._options.concurrency, total)):
                        group.create_task(work(endpoint, cache, advance))
        except BaseExceptionGroup as e:
            raise e.exceptions[0] from None
        reader.finish()
        said = [{aspect: v for aspect, ask in row.items() if (v := settled[ask]) is not None} for row in asks]
        return [judgement_of(one) for one in said]

    @contextmanager
    def _bar(self, total: int) -> Iterator:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(markup=False, emoji=False, stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        off = not (self._options.progress and console.is_terminal)
        with Progress(*columns, console=console, transient=True, disable=off) as bar:
            task = bar.add_task(f"judging by {self.identity.model}", total=total)
            yield lambda: bar.advance(task)


class _Reader:
    """Reads replies into `settled`; stops early where no reply of this judge can be read in this mode."""

    def __init__(self, model: str, settled: dict) -> None:
        self._model, self._settled = model, settled
        self._wrong = 0
        self._fits = False  # whether a reply showed that the mode suits the judge
        self._digits: list[Ask] = []

    def read(self, ask: Ask, reply: Reply, mode: Mode) -> None:
        aspect = ask[0]
        try:
            self._fits = self._fits or (mode == "logprobs" and whole_numbers(reply))
            self._settled[ask] = read_aspect(aspect, reply, mode)
            if aspect == "leak":
                return
            self._fits = self._fits or mode == "numeric"
            if mode == "logprobs" and single_digits(reply):
                self._digits.append(ask)
        except WrongMode as e:
            self._settled[ask] = e
            self._wrong += 1
            if self._wrong >= EARLY and not self._fits:
                raise UserError(f"judge {self._model}: {EARLY} replies cannot be read: {e}") from None
        except Unsettled as e:
            self._settled[ask] = e

    def finish(self) -> None:
        """A lone digit of a judge that was seen to write digit by digit may be the first of two."""
        if self._wrong and not self._fits:
            why = Unsettled(
                "a lone digit of a judge whose first token does not settle a score; use mode numeric, or another judge"
            )
            self._settled.update(dict.fromkeys(self._digits, why))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
