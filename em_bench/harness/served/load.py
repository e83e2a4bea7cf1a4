"""One continuous load on a server: the questions of all its models, so many at once, every answer kept as it comes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from em_bench.errors import UserError
from em_bench.harness.kept import Kept
from em_bench.harness.served.requests import Said, chat, read_said, sample_seed
from em_bench.judging.asked import Failed
from em_bench.judging.endpoint import Endpoint
from em_bench.records import Generation, Question, Response

NAMED = 3  # missing answers that an error spells out


async def _nothing() -> None:
    pass


@dataclass
class Part:
    """One model's questions. name: the server's for it. begin, end: before its first question is sent, after its last answer."""

    name: str
    questions: Sequence[Question]
    generation: Generation
    kept: Kept
    begin: Callable[[], Coroutine[Any, Any, None]] = _nothing
    end: Callable[[], Coroutine[Any, Any, None]] = _nothing
    system_apart: bool = True
    said: dict[tuple[int, int], Said] = field(default_factory=dict)  # by the question's place and the sample's number

    def take_kept(self) -> None:
        """Have what an earlier call was answered."""
        for at in self.samples():
            if (item := self.kept.take(self.key(at))) is not None:
                self.said[at] = Said(*item)

    def samples(self) -> Iterator[tuple[int, int]]:
        """All that is to be asked."""
        return ((q, s) for q in range(len(self.questions)) for s in range(self.generation.samples))

    def missing(self) -> list[tuple[int, int]]:
        """What is not answered."""
        return [at for at in self.samples() if at not in self.said]

    def key(self, at: tuple[int, int]) -> str:
        """Names a sample in the file of kept answers, and to people."""
        return f"{self.questions[at[0]].id}/{at[1]}"

    def responses(self) -> list[Response]:
        """All answers, question by question."""
        out = []
        for q, sample in self.samples():
            question, (answer, thinking) = self.questions[q], self.said[q, sample].response()
            told = {
                "cluster": question.cluster,
                "variant": question.variant,
                "system": question.system,
                "question": question.text,
            }
            out.append(Response(question_id=question.id, sample=sample, answer=answer, thinking=thinking, **told))
        return out


async def ask_all(
    endpoint: Endpoint, parts: Sequence[Part], at_once: int, advance: Callable[[int], None] = lambda n: None
) -> None:
    """Ask what is missing of all parts, `at_once` requests under way at any time, across the borders of parts.

    Every answer is on the disk before its place is given to another question. Raises UserError where no call can succeed, and
    one that names what is missing where some calls had no answer; what was answered is kept then too.
    """
    problems: dict[str, str] = {}
    begun = {id(p): asyncio.Lock() for p in parts}
    writer = _Writer()
    queue = _queue(parts)

    async def work() -> None:
        for part, at in queue:
            async with begun[id(part)]:
                if part.begin is not _nothing:
                    await part.begin()
                    part.begin = _nothing  # only now: where it fails, who waits at the lock asks no question
            fields: dict[str, object] = {"model": part.name}
            fields["messages"] = chat(part.questions[at[0]], part.system_apart)
            if part.generation.seed is not None:
                fields["seed"] = sample_seed(part.generation.seed, part.questions[at[0]].id, at[1])
            try:
                said = await endpoint.call(fields, read_said)
            except Failed as e:
                problems[f"{part.name} {part.key(at)}"] = str(e)
            else:
                await writer.keep(part, at, said)
            advance(1)
            left[id(part)] -= 1
            if not left[id(part)]:
                await part.end()

    left = {id(p): len(p.missing()) for p in parts}
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    except BaseExceptionGroup as e:
        raise e.exceptions[0] from None
    finally:
        writer.rest()
    if problems:
        total, shown = sum(len(p.questions) * p.generation.samples for p in parts), list(problems.items())[:NAMED]
        raise UserError(
            f"{len(problems)} of {total} answers are missing: {'; '.join(f'{k}: {v}' for k, v in shown)}"
            f"{', ...' * (len(problems) > NAMED)}; the others are kept: give the same command again"
        )


def _queue(parts: Sequence[Part]) -> Iterator[tuple[Part, tuple[int, int]]]:
    for part in parts:
        for at in part.missing():
            yield part, at


class _Writer:
    """Answers written through to the disk, those that arrive together in one go, beside the loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Part, tuple[int, int], Said]] = []
        self._lock = asyncio.Lock()

    async def keep(self, part: Part, at: tuple[int, int], said: Said) -> None:
        self._waiting.append((part, at, said))
        async with self._lock:  # who comes later finds what was waiting written
            waiting, self._waiting = self._waiting, []
            if waiting:
                await asyncio.to_thread(self._write, waiting)

    def rest(self) -> None:
        """Write what a call that was broken off left waiting."""
        self._write(self._waiting)

    @staticmethod
    def _write(waiting: list[tuple[Part, tuple[int, int], Said]]) -> None:
        by_part: dict[int, list[tuple[Part, tuple[int, int], Said]]] = {}
        for one in waiting:
            by_part.setdefault(id(one[0]), []).append(one)
        for some in by_part.values():
            part = some[0][0]
            part.kept.add([(part.key(at), list(said)) for _, at, said in some])
            part.said.update({at: said for _, at, said in some})


@asynccontextmanager
async def while_alive(alive: Callable[[], None], every_s: float = 0.5) -> AsyncIterator[None]:
    """Ends the block with what `alive` raises, soon after it does: a server that has died is not waited for."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(every_s)
            alive()

    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            yield
            watching.cancel()
    except BaseExceptionGroup as e:
        raise next((x for x in e.exceptions if isinstance(x, UserError)), e.exceptions[0]) from None
