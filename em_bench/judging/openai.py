"""The judge behind an OpenAI-compatible endpoint."""

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from em_bench.errors import UserError
from em_bench.judging.asked import AskedJudge, Asker
from em_bench.judging.cache import ReplyCache
from em_bench.judging.endpoint import Endpoint
from em_bench.judging.options import JudgeOptions
from em_bench.judging.providers import retirement
from em_bench.judging.reply import TOP_LOGPROBS, Mode
from em_bench.judging.request_parameters import difference
from em_bench.judging.served_replies import ASKED, ServedReplies


class OpenAIJudge(AskedJudge):
    """Asks a chat model.

    What the endpoint refuses of the settings is left out, said on stderr, and left out of the identity, which then says
    `refused`. Raises UserError for options that do not fit, and for a judge that its provider has switched off, of which no reply is
    in the cache.
    """

    kind = "openai"

    def __init__(self, model: str, options: JudgeOptions = JudgeOptions()) -> None:
        super().__init__(options)
        self._asked: dict[str, object] = {"temperature": 0.0, "max_tokens": options.max_tokens}
        if options.mode == "replies":
            self._asked = ASKED
        elif options.mode == "logprobs":
            self._asked |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        self.model, self._sent = model, self._asked
        self._name = self._endpoint().name
        self._asked_as = self._paid_by
        self._leaves, gone = retirement(model, self._endpoint().host)
        known = False
        if self._cache.is_file():
            with ReplyCache(self._cache) as kept:
                self._sent = kept.taken(self._asked_as) or self._asked
                known = kept.knows(self._paid_by)
        if gone and not known:
            raise UserError(f"judge {model}: {self._leaves}")

    @property
    def mode(self) -> Mode:  # type: ignore[override]  # read by what is sent
        """How replies are read: without logprobs, the written number."""
        if self._options.mode == "replies":
            return "replies"
        return "logprobs" if "logprobs" in self._sent else "numeric"

    def _endpoint(self, on_taken: Callable[[dict[str, object]], None] = lambda sent: None) -> Endpoint:
        o = self._options
        return Endpoint(self.model, o.base_url, self._sent, o, max_calls=o.max_calls, on_taken=on_taken)

    def _asker(self, cache: ReplyCache) -> AbstractAsyncContextManager[Asker]:
        if self._leaves:
            print(f"judge {self.model}: {self._leaves}", file=sys.stderr)
        endpoint = self._endpoint(partial(self._take, cache))
        return ServedReplies(endpoint) if self.mode == "replies" else endpoint

    def _decoding(self) -> dict:
        sent = {} if self.mode == "replies" else self._sent
        decoding = {"mode": self.mode, "endpoint": self._name, "run": self._options.run, **sent}
        if refused := [k for k in self._asked if self._sent.get(k) != self._asked[k]]:
            decoding["refused"] = " ".join(refused)
        return decoding

    def _take(self, cache: ReplyCache, sent: dict[str, object]) -> None:
        """Send less from now on, and say so."""
        read = "; it is read in mode numeric" if self.mode == "logprobs" and "logprobs" not in sent else ""
        said = difference(self._sent, sent)
        print(f"judge {self.model}: the endpoint refuses settings: {said}{read}; the judge's identity says so", file=sys.stderr)
        self._sent = sent
        cache.put_taken(self._asked_as, sent)
