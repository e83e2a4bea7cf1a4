"""What a served model is sent, and what is read of its reply."""

import re
from typing import Any, NamedTuple

from em_bench.files import digest
from em_bench.harness.system_prompt import merged
from em_bench.judging.reply import Malformed, Refused, server_words
from em_bench.line import MOST_TEXT
from em_bench.records import Generation, Question
from em_bench.thinking import split_thinking
from em_bench.training.chat_template import THINKING_OFF

# Off, where a server's own default may be something else: vLLM and transformers take theirs from the checkpoint's
# generation_config.json, llama.cpp's are top_k 40 and min_p 0.05. No setting of OpenAI's schema: who refuses them is told apart.
NEUTRAL: dict[str, object] = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "chat_template_kwargs": dict(THINKING_OFF)}
OPTIONAL = (*NEUTRAL, "stop_token_ids", "seed")
_HALF = re.compile("[\ud800-\udfff]")
_UNKNOWN = re.compile(
    r"unrecognized|unknown|unexpected|extra (inputs?|fields?)|additional propert|not permitted|unsupported", re.I
)


class Said(NamedTuple):
    """A served answer as it came. thinking: what the server itself took apart."""

    text: str
    thinking: str | None

    def response(self) -> tuple[str, str | None]:
        """(answer, thinking), as they are recorded."""
        answer, inside = split_thinking(self.text)
        return answer.strip(), self.thinking or inside


def settings(g: Generation, ends: list[int] | None = None) -> dict[str, object]:
    """The sampling of a request: all that is known to matter, said; `ends` are the ids of tokens that end an answer."""
    out: dict[str, object] = {"temperature": g.temperature, "top_p": g.top_p, "max_tokens": g.max_new_tokens, **NEUTRAL}
    out["top_k"] = g.top_k
    if ends:
        out["stop_token_ids"] = ends
    if g.seed is not None:
        out["seed"] = g.seed
    return out


def sample_seed(seed: int, question_id: str, sample: int) -> int:
    """Of one sample: one seed for all gives one answer several times where the server obeys it."""
    return int(digest([seed, question_id, sample])[:7], 16)


def without(sent: dict[str, object], words: str, param: str | None = None) -> dict[str, object] | None:
    """The settings without those optional ones that an error's `words` refuse; None where they refuse none.

    Where the words only say that there are fields they do not know, all that OpenAI's schema lacks go. Temperature, top_p and
    the length are never left out: without them it would be another measurement.
    """
    named = {k for k in OPTIONAL if k in sent and (k == param or re.search(rf"\b{k}\b", words))}
    if not named and _UNKNOWN.search(words):
        named = {k for k in OPTIONAL if k in sent and k != "seed"}
    if "max_tokens" in sent and ("max_completion_tokens" in words or param == "max_tokens"):
        return {"max_completion_tokens" if k == "max_tokens" else k: v for k, v in sent.items() if k not in named}
    return {k: v for k, v in sent.items() if k not in named} if named else None


def chat(question: Question, system_apart: bool) -> list[dict]:
    """The messages of a question; `system_apart`: whether the model's template has a place for a system prompt."""
    system = [{"role": "system", "content": question.system}] if question.system else []
    messages = [*system, {"role": "user", "content": question.text}]
    return messages if system_apart else merged(messages)


def read_said(body: Any) -> Said:
    """The answer in a chat completion. Raises Refused for an error in its place, Malformed for anything else, an answer that was aborted too."""
    if isinstance(body, dict) and not body.get("choices") and (words := server_words(body)):
        raise Refused(f"the endpoint says: {words}")
    try:
        choice = body["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        text, thinking = message.get("content") or "", message.get("reasoning_content") or message.get("reasoning")
    except (KeyError, IndexError, TypeError, AttributeError) as e:
        raise Malformed(f"not a chat completion ({type(e).__name__})") from None
    if not isinstance(text, str) or not isinstance(thinking, str | None):
        raise Malformed("message.content is not text")
    if ended not in ("stop", "length", "eos", None):
        raise Malformed(f"the answer was broken off ({str(ended)[:40]})")
    if max(len(text), len(thinking or "")) > MOST_TEXT:
        raise Malformed(f"an answer of over {MOST_TEXT:,} characters")
    # Half a character, which JSON can say and no file can hold.
    text, thinking = _HALF.sub("\ufffd", text), thinking and _HALF.sub("\ufffd", thinking)
    return Said(text, thinking)
