"""A judge that is asked by prompts: independent questions on each response, each asked once, every reply kept."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from em_bench import files
from em_bench.errors import UserError
from em_bench.judging.cache import ReplyCache
from em_bench.judging.judge import Judgement, judgement_of
from em_bench.judging.loop import finish
from em_bench.judging.options import JudgeOptions
from em_bench.judging.prompts import Aspect, load_prompts
from em_bench.judging.reply import Labels, Mode, Reply, Unsettled, WrongMode, read_aspect, single_digits, whole_numbers
from em_bench.records import JudgeIdentity

Ask = tuple[Aspect, str]  # what is asked, and the sha256 of the whole prompt
EARLY = 20  # calls after which a judge that never gave a reply of use is taken for misconfigured, not for unlucky


class Failed(Exception):
    """A call has no reply; the text says why."""


class Asker(Protocol):
    """What gives replies. `works`: whether it is known to have answered, now or in an earlier run."""

    works: bool

    async def ask(self, prompt: str) -> Reply:
        """The reply to one prompt. Raises Failed; UserError where no call can succeed."""
        ...


class AskedJudge:
    """Asks for alignment and coherence, and for leakage where `leak` says what the model was trained on.

    Who is asked is a subclass's to say: its name, the settings that the identity names beside the prompts, and what gives
    replies. Raises UserError for options that do not fit.
    """

    kind: str
    model: str
    mode: Mode = "logprobs"

    def __init__(self, options: JudgeOptions) -> None:
        self._options = options
        self._prompts = load_prompts(options.prompts, options.leak)
        self._cache: Path = options.cache or files.cache_dir() / "judge.sqlite"

    def _decoding(self) -> dict:
        """The settings that determine a reply, and with the prompts how it is read."""
        raise NotImplementedError

    def _asker(self, cache: ReplyCache) -> AbstractAsyncContextManager[Asker]:
        raise NotImplementedError

    @property
    def identity(self) -> JudgeIdentity:
        """What its verdicts are of."""
        labels = {} if self._prompts.labels == "text" else {"labels": self._prompts.labels}
        decoding = self._decoding() | labels
        return JudgeIdentity(kind=self.kind, model=self.model, prompt_sha256=files.digest(self._prompts.texts), decoding=decoding)

    @property
    def _paid_by(self) -> str:
        # Not the prompts: what is cached is keyed by the whole text that was sent.
        return files.digest([self.model, self._decoding()])

    def judge(self, items: Sequence[tuple[str | None, str, str]]) -> list[Judgement]:
        """One judgement for each (system, question, answer), in order. Raises UserError where no call can succeed.

        Every reply is in the cache before its judgement is made, so that a process killed at any moment pays again at
        most for the calls that were under way.
        """
        return finish(self._judge(items))

    async def _judge(self, items: Sequence[tuple[str | None, str, str]]) -> list[Judgement]:
        asks: list[dict[Aspect, Ask]] = [{} for _ in items]
        settled: dict[Ask, float | str | bool | Unsettled | None] = {}  # None: under way
        reader = _Reader(self.model, self._prompts.labels, settled)
        queue = ((i, aspect) for i in range(len(items)) for aspect in self._prompts.texts)

        async def work(asker: Asker, cache: ReplyCache, advance: Callable[[], None]) -> None:
            # Looks up and asks in one pass: nothing but the prompts under way is in memory.
            for i, aspect in queue:
                _, question, answer = items[i]
                prompt = self._prompts.fill(aspect, question, answer)
                asks[i][aspect] = ask = (aspect, _sha256(prompt))
                if ask not in settled:
                    settled[ask] = None
                    reply = cache.get(self._paid_by, ask[1])
                    if reply is not None:
                        asker.works = True
                        reader.read(ask, reply, self.mode)
                        await asyncio.sleep(0)  # a long stretch of known replies must not hold up those that arrive
                    else:
                        try:
                            reply = await asker.ask(prompt)
                        except Failed as e:
                            settled[ask] = Unsettled(str(e))
                        else:
                            cache.put(self._paid_by, ask[1], reply)
                            reader.read(ask, reply, self.mode)
                advance()

        total = len(items) * len(self._prompts.texts)
        try:
            with ReplyCache(self._cache) as cache, self._bar(total) as advance:
                async with self._asker(cache) as asker, asyncio.TaskGroup() as group:
                    for _ in range(min(self._options.concurrency, total)):
                        group.create_task(work(asker, cache, advance))
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
            task = bar.add_task(f"judging by {self.model}", total=total)
            yield lambda: bar.advance(task)


class _Reader:
    """Reads replies into `settled`; stops early where no reply of this judge can be read in this mode."""

    def __init__(self, model: str, labels: Labels, settled: dict) -> None:
        self._model, self._labels, self._settled = model, labels, settled
        self._wrong = 0
        self._fits = False  # whether a reply showed that the mode suits the judge
        self._digits: list[Ask] = []

    def read(self, ask: Ask, reply: Reply, mode: Mode) -> None:
        aspect = ask[0]
        try:
            self._fits = self._fits or (mode == "logprobs" and whole_numbers(reply))
            self._settled[ask] = read_aspect(aspect, reply, mode, self._labels)
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
