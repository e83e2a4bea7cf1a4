"""Text of strangers: what may stand in one line of it, and how any text becomes such a line. Imports nothing of the house."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

# Letters and marks that show nothing: fillers, blanks, selectors, tags. What else is not shown is not printable to Python.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U0001d159\U000e0100-\U000e01ef]"
)
_PILED = re.compile("[\u0300-\u036f\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{4}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
MOST_TEXT = 1 << 18  # characters of any text: what 32,000 tokens of thinking come to


def visible(text: str) -> str:
    """The text itself. Raises ValueError for a line break, and for what shows nothing, turns the line round or covers others."""
    if not text.isprintable() or (not text.isascii() and (_UNSEEN.search(text) or _PILED.search(text))):
        raise ValueError("line breaks and control, invisible or direction-changing characters are not allowed")
    return text


def one_line(text: str, most: int = 300) -> str:
    """Any text as one harmless line of at most `most` characters."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(text[: 4 * most].split()))
    text = _PILED.sub("?", _UNSEEN.sub("?", text))
    return text if len(text) <= most else text[: most - 3] + "..."


def is_device(name: str) -> bool:
    """Whether Windows takes a file of this name for a device, with whatever ending."""
    return _RESERVED.match(name) is not None


def identifier(text: str) -> str:
    """The text itself. Raises ValueError for what is no portable name of a file."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,198}[A-Za-z0-9_+-])?", text) or is_device(text):
        raise ValueError(
            "a name is printable ASCII: up to 200 of A-Z a-z 0-9 . _ + -, a letter or digit first, and no device (con, nul)"
        )
    return text


Line = Annotated[str, Field(max_length=1000), AfterValidator(visible)]
Identifier = Annotated[str, AfterValidator(identifier)]
