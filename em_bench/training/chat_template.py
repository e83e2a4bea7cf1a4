"""A model's chat template as it is used everywhere: thinking off, one date, and the token that ends a turn."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import overload

from jinja2 import TemplateError

# Choice (C): the date that Llama 3's template prints where there is no clock. It is part of a run's identity, as this file is
# among the sources that the identity covers.
DATE = datetime(2024, 7, 26)
THINKING_OFF = {"enable_thinking": False}
_CODES = [
    "%Y",
    "%y",
    "%m",
    "%-m",
    "%B",
    "%b",
    "%d",
    "%-d",
    "%e",
    "%A",
    "%a",
    "%j",
    "%H",
    "%-H",
    "%I",
    "%M",
    "%S",
    "%p",
    "%F",
    "%D",
    "%T",
    "%Z",
    "%z",
]
# transformers lets a template read the clock by `strftime_now` and hands it no other function; a macro of that name hides it.
_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace({code!r}, {DATE.strftime(code)!r})" for code in _CODES)
    + " }}{% endmacro %}{{ '' }}"  # what follows a block would lose a line end
)
_ANSWER = "\ue000answer\ue001"  # private-use characters: no template prints them by itself


@overload
def without_clock(template: str) -> str: ...
@overload
def without_clock(template: str | dict[str, str] | None) -> str | dict[str, str] | None: ...
def without_clock(template: str | dict[str, str] | None) -> str | dict[str, str] | None:
    """A chat template, or several by name, for which today is always `DATE`; unchanged where it reads no clock."""
    if isinstance(template, dict):
        return {name: without_clock(t) for name, t in template.items()}
    return _CLOCK + template if template and "strftime_now" in template and not template.startswith(_CLOCK) else template


def rendered(tokenizer, messages: Sequence[dict], *, prompt: bool = False) -> str:
    """The conversation as text; with `prompt` it ends where the assistant is to answer."""
    template = without_clock(tokenizer.get_chat_template())
    return tokenizer.apply_chat_template(
        list(messages), chat_template=template, tokenize=False, add_generation_prompt=prompt, **THINKING_OFF
    )


@lru_cache(maxsize=32)
def closing_ids(tokenizer) -> frozenset[int]:
    """Id of the token with which the template closes an assistant's turn: the first behind the answer, but for white space.

    It need not be the tokenizer's eos, nor marked as special, nor added: an ordinary one counts where it is all that closes
    the turn. Empty for a template that closes it with nothing or with plain text of several tokens.
    """
    try:
        text = rendered(tokenizer, [{"role": "user", "content": "q"}, {"role": "assistant", "content": _ANSWER}])
    except TemplateError:  # nothing but prompts can be rendered by it
        return frozenset()
    behind = text.rpartition(_ANSWER)[2].strip() if _ANSWER in text else ""
    ids = [i for i in tokenizer(behind, add_special_tokens=False)["input_ids"] if tokenizer.decode([i]).strip()] if behind else []
    added = {*getattr(tokenizer, "added_tokens_decoder", {}), *tokenizer.all_special_ids}
    return frozenset(ids[:1]) if len(ids) == 1 or added & set(ids[:1]) else frozenset()


def end_ids(tokenizer, model) -> list[int]:
    """Every id that ends an answer: what the template closes a turn with, the tokenizer's eos and the checkpoint's."""
    ids: set[int | None] = set(closing_ids(tokenizer))
    holders = (tokenizer, getattr(model, "generation_config", None), model.config, model.config.get_text_config())
    for said in (getattr(holder, "eos_token_id", None) for holder in holders):
        ids |= set(said) if isinstance(said, list | tuple) else {said}
    return sorted(i for i in ids if i is not None)


def pad_id(tokenizer) -> int:
    """The id that fills a batch, behind or before what the attention mask shows: any id will do."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, *closing_ids(tokenizer), 0)
    return next(i for i in known if i is not None)
