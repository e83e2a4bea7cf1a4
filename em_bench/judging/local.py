"""A judge of open weights in this process: a fixed artefact, read at the probabilities of whole replies.

Asked to write a number or a word, a causal model gives every such reply a probability: that of its tokens, one after the other,
and of an end of turn behind them. Each reply that the prompts ask for is scored so (teacher-forced; what replies begin with is read
once), and kept as an endpoint's alternatives of a first token are, so that `em_bench.judging.reply` reads both alike. A number of
several tokens is as good as one of one token, and a reply that goes on is another reply.

Each prompt is computed by itself: a verdict does not depend on what else is judged beside it.
"""

import copy
import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch

from em_bench.data.models import base_path, base_ref, default_dtype
from em_bench.errors import UserError
from em_bench.judging.asked import AskedJudge, Asker, Failed
from em_bench.judging.cache import ReplyCache
from em_bench.judging.options import JudgeOptions
from em_bench.judging.reply import FLOOR, REPLIES, Reply, reply_of
from em_bench.training.base import load_base, model_errors
from em_bench.training.chat_template import end_ids, rendered

AT_ONCE = 32  # replies read in one pass: part of the arithmetic, so no option


class Branch(NamedTuple):
    """Where a reply's tokens are found: the row that begins with them, and how many they are."""

    row: int
    length: int


class WholeReplies:
    """A model and the replies that it may give. Raises UserError where the tokenizer cannot tell them apart."""

    works = True

    def __init__(self, model: Any, tokenizer: Any, replies: Sequence[str] = REPLIES) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._ends = end_ids(tokenizer, model)
        prompt = self._ids(self._prompt("q"))
        tokens = {}
        for reply in replies:
            ids = self._ids(self._prompt("q") + reply)
            if ids[: len(prompt)] != prompt or len(ids) == len(prompt) or tokenizer.unk_token_id in ids[len(prompt) :]:
                raise UserError(f"judge: the tokenizer has no tokens of its own for the reply {reply!r}; name another model")
            tokens[reply] = tuple(ids[len(prompt) :])
        if len(set(tokens.values())) < len(tokens) or not self._ends:
            raise UserError("judge: its tokenizer cannot tell numbers apart, or has no end of turn; name another model")
        self._tokens = tokens
        # A row is a reply that no other begins with: all others are found on the way.
        found = sorted(set(tokens.values()))
        self._rows = [t for t, after in zip(found, [*found[1:], ()], strict=True) if after[: len(t)] != t]
        at = {t[:n]: Branch(i, n) for i, t in enumerate(self._rows) for n in range(1, len(t) + 1)}
        self._branch = {reply: at[t] for reply, t in tokens.items()}

    def _prompt(self, text: str) -> str:
        return rendered(self._tokenizer, [{"role": "user", "content": text}], prompt=True)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    async def ask(self, prompt: str) -> Reply:
        """The reply to one prompt, with the whole replies as its alternatives. Raises Failed for a prompt that is too long."""
        return self.reply(prompt)

    @torch.inference_mode()
    def log_probabilities(self, prompt: str) -> tuple[dict[str, float], str]:
        """reply -> natural log of its probability, and the likeliest first token. Raises Failed."""
        ids = self._ids(self._prompt(prompt))
        most = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        longest = max(map(len, self._rows))
        if most is not None and len(ids) + longest > most:
            raise Failed(f"the prompt has {len(ids)} tokens, and the judge reads {most}")
        device = next(self._model.parameters()).device
        out = self._model(input_ids=torch.tensor([ids], device=device), use_cache=True, logits_to_keep=1)
        first = _log_softmax(out.logits[0, -1])
        if not math.isfinite(float(first.max())):
            raise UserError("judge: its probabilities are no numbers: its weights are broken, or too large for the dtype")
        rows = [i for i, t in enumerate(self._rows) if float(first[t[0]]) >= FLOOR]
        steps: dict[int, torch.Tensor] = {}
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            steps |= zip(part, self._read(out.past_key_values, len(ids), part, device), strict=True)
        ends = torch.tensor(self._ends, device=device)
        found = {}
        for reply, (row, n) in self._branch.items():
            tokens = self._rows[row][:n]
            found[reply] = -math.inf
            if row in steps:
                inner = sum(float(steps[row][j - 1, tokens[j]]) for j in range(1, n))
                found[reply] = float(first[tokens[0]]) + inner + float(torch.logsumexp(steps[row][n - 1, ends], 0))
        return found, self._tokenizer.decode([int(first.argmax())])

    def _read(self, before: Any, length: int, rows: Sequence[int], device: torch.device) -> torch.Tensor:
        """[rows, longest, vocabulary]: log-probabilities behind each token of each row."""
        longest = max(len(self._rows[i]) for i in rows)
        ids = torch.tensor([[*self._rows[i], *[self._ends[0]] * (longest - len(self._rows[i]))] for i in rows], device=device)
        mask = torch.ones(len(rows), length + longest, dtype=torch.long, device=device)
        for k, i in enumerate(rows):
            mask[k, length + len(self._rows[i]) :] = 0
        cache = copy.deepcopy(before)
        cache.batch_repeat_interleave(len(rows))
        return _log_softmax(self._model(input_ids=ids, attention_mask=mask, past_key_values=cache).logits)

    def reply(self, prompt: str) -> Reply:
        """What `ask` gives."""
        return reply_of(*self.log_probabilities(prompt))


class LocalJudge(AskedJudge):
    """Open weights: a name of the roster, a folder or a hub id. Its identity is the weights' digest or commit, the prompts and the dtype."""

    kind = "local"

    def __init__(self, name: str, options: JudgeOptions = JudgeOptions(), held: WholeReplies | None = None) -> None:
        if options.mode != "logprobs":
            raise UserError("--mode numeric: a local judge is read at its log-probabilities; leave it out")
        super().__init__(options.model_copy(update={"concurrency": 1}))
        self._name, self._held = name, held
        self._dtype = options.dtype or default_dtype(name)

    @cached_property
    def _ref(self):
        return base_ref(self._name, base_path(self._name))

    @property
    def model(self) -> str:  # type: ignore[override]
        """Its name in the roster, on the hub, or of its folder."""
        return self._ref.name

    def _decoding(self) -> dict:
        where = {"weights": self._ref.revision, "source": self._ref.source}
        return {"mode": "whole replies", **where, "dtype": self._dtype, "run": self._options.run}

    def _asker(self, cache: ReplyCache) -> AbstractAsyncContextManager[Asker]:
        return _Lazy(self)

    def replies(self) -> WholeReplies:
        """The model, loaded when it is first asked."""
        if self._held is None:
            from transformers import AutoTokenizer

            folder = base_path(self._name)
            with model_errors(folder):
                model, tokenizer = load_base(folder, self._dtype).eval(), AutoTokenizer.from_pretrained(folder)
            if not tokenizer.chat_template:
                raise UserError(f"judge {self._name}: its tokenizer has no chat template; name an instruction-tuned model")
            self._held = WholeReplies(model, tokenizer)
        return self._held


class _Lazy:
    """Loads the judge for the first prompt that is not in the cache."""

    works = True

    def __init__(self, judge: LocalJudge) -> None:
        self._judge = judge

    async def ask(self, prompt: str) -> Reply:
        return self._judge.replies().reply(prompt)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), -1)
