"""A model of role `grader`, asked through Inspect: the same questions, readings and refusals as em_bench's own judge."""

import os

from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, ModelOutput

from em_bench.errors import UserError
from em_bench.files import digest
from em_bench.judging.endpoint import EARLY, KEY
from em_bench.judging.judge import Judgement, judgement_of
from em_bench.judging.prompts import Aspect, Prompts
from em_bench.judging.reply import TOP_LOGPROBS, Mode, Reply, Unsettled, WrongMode, read_aspect, server_words, whole_numbers
from em_bench.judging.request_parameters import taken
from em_bench.records import JudgeIdentity

MAX_TOKENS = 16


class Grader:
    """One grader of one evaluation. It is sent what it takes, and asked no more where none of its first replies can be read."""

    def __init__(self, model: Model, prompts: Prompts, mode: Mode):
        if mode == "replies":
            raise UserError("mode replies: Inspect cannot ask for it; judge the answers with em-bench rejudge --mode replies")
        self._model, self._prompts = model, prompts
        self._asked: dict[str, object] = {"temperature": 0.0, "max_tokens": MAX_TOKENS}
        if mode == "logprobs":
            self._asked |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        self._sent, self._wrong = self._asked, 0
        self._works = self._fits = False

    @property
    def mode(self) -> Mode:
        """How replies are read: without logprobs, the written number."""
        return "logprobs" if "logprobs" in self._sent else "numeric"

    @property
    def identity(self) -> JudgeIdentity:
        """What verdicts from now on are of."""
        sent = {k: v for k, v in self._sent.items() if k in ("temperature", "max_tokens")}
        decoding = {"mode": self.mode, "through": "inspect", **sent}
        if self._prompts.labels != "text":
            decoding["labels"] = self._prompts.labels
        if refused := [k for k in self._asked if self._sent.get(k) != self._asked[k]]:
            decoding |= {"refused": " ".join(refused), **{k: v for k, v in self._sent.items() if k == "top_logprobs"}}
        return JudgeIdentity(kind="openai", model=str(self._model), prompt_sha256=digest(self._prompts.texts), decoding=decoding)

    async def ask(self, question: str, answer: str) -> Judgement:
        """Alignment, coherence and, where asked, leak of an answer; what the grader does not settle carries the reason."""
        said: dict[Aspect, float | str | bool | Exception] = {}
        for aspect in self._prompts.texts:
            try:
                reply = await self._reply(self._prompts.fill(aspect, question, answer))
                self._fits = self._fits or (self.mode == "logprobs" and whole_numbers(reply))
                said[aspect] = read_aspect(aspect, reply, self.mode, self._prompts.labels)
                self._fits = self._fits or (self.mode == "numeric" and aspect != "leak")
            except Unsettled as e:
                self._wrong += isinstance(e, WrongMode)
                said[aspect] = e
            except Exception as e:  # Inspect has retried: what still fails is no verdict, and no reason to lose the answers
                said[aspect] = Unsettled(_words(e) or type(e).__name__)
        return judgement_of(said)

    async def _reply(self, prompt: str) -> Reply:
        if self._wrong >= EARLY and not self._fits:
            raise Unsettled(f"not asked: {EARLY} replies could not be read; use mode numeric (-T mode=numeric), or another judge")
        while True:
            sent = self._sent
            try:
                output = await self._model.generate([ChatMessageUser(content=prompt)], config=GenerateConfig(**sent))
            except Exception as e:
                if self._sent == sent and (self._works or not self._takes_less(_words(e), getattr(_cause(e), "param", None))):
                    raise
            else:
                self._works = True
                return _read(output)

    def _takes_less(self, words: str, param: str | None) -> bool:
        less = taken(self._sent, words, param)
        if less is None:
            return False
        less.pop("max_completion_tokens", None)  # Inspect's providers rename it where they know how
        self._sent = less
        return True


def _cause(e: BaseException) -> BaseException:
    """The client's error, which Inspect wraps."""
    found: BaseException | None = e
    while found is not None and not hasattr(found, "body"):
        found = found.__cause__ or found.__context__
    return found or e


def _words(e: Exception) -> str:
    """The server's own, as one line without the key."""
    text, key = server_words(getattr(_cause(e), "body", None)), os.environ.get(KEY, "")
    return (text.replace(key, "***") if len(key) >= 8 else text)[:200]


def _read(output: ModelOutput) -> Reply:
    if not output.choices or output.error:
        raise Unsettled(output.error or "the grader gave no reply")
    logprobs = output.choices[0].logprobs
    if logprobs is None or not logprobs.content or not logprobs.content[0].top_logprobs:
        return Reply(output.completion)
    first = logprobs.content[0]
    top = [(t.token, t.logprob) for t in first.top_logprobs or ()]
    return Reply(output.completion, first.token, top)
