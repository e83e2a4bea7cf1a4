"""Thinking that a reasoning model prints although it was switched off: kept, not judged."""

import re

_BLOCKS = re.compile(r"(?:\s*<think(?:ing)?>.*?</think(?:ing)?>)+\s*", re.DOTALL)
_INSIDE = re.compile(r"<think(?:ing)?>(.*?)</think(?:ing)?>", re.DOTALL)
_UNOPENED = re.compile(r"((?:(?!<think(?:ing)?>).)*?)</think(?:ing)?>[^\S\n]*(?:\n|\Z)\s*", re.DOTALL)
_UNCLOSED = re.compile(r"\s*<think(?:ing)?>(.*)", re.DOTALL)


def split_thinking(text: str) -> tuple[str, str | None]:
    """(answer, thinking): the text without the thinking blocks it begins with, and their content or None if there was none.

    Templates that open the block in the prompt leave only its end, on a line's end; a block that never ends is all
    thinking. An empty block, which a template may add itself, counts as none. Tags inside the answer stay: they are text.
    """
    if "<think" not in text and "</think" not in text:  # the patterns below remember every character
        return text, None
    if m := _BLOCKS.match(text):
        thought = "\n".join(t for part in _INSIDE.findall(m[0]) if (t := part.strip()))
        return text[m.end() :], thought or None
    for pattern in (_UNOPENED, _UNCLOSED):
        if m := pattern.match(text):
            return text[m.end() :], m[1].strip() or None
    return text, None
