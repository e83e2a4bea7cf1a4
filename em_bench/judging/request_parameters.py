"""What of a judge's settings an endpoint takes: those that it refuses are renamed, lowered or left out."""

import re

OURS = ("logprobs", "max_tokens", "max_completion_tokens", "temperature")
ABOUT_THE_PROMPT = ("context", "too long", "too large", "content", "policy", "filter")
_NUMBERS = re.compile(r"(?<![\w.-])\d+(?![\w.]\d)", re.ASCII)


def is_ours(words: str, param: str | None = None) -> bool:
    """Whether an error is about a setting, so that no prompt can be judged, and not about one prompt (too long, filtered)."""
    text = f"{param or ''} {words}".lower()
    return any(name in text for name in OURS) and not any(word in text for word in ABOUT_THE_PROMPT)


def taken(sent: dict[str, object], words: str, param: str | None = None) -> dict[str, object] | None:
    """The settings without what an error's `words` refuse; None where they name none that can go.

    `max_tokens` becomes `max_completion_tokens`; `top_logprobs` becomes the number that the words allow; without logprobs the
    written number is what is left to read. `param` is the setting that the endpoint names apart from its words.
    """
    if not is_ours(words, param):
        return None
    out = dict(sent)
    top = sent.get("top_logprobs")
    for name in [param] if isinstance(param, str) and param in sent else [k for k in sent if re.search(rf"\b{k}\b", words)]:
        if name == "max_tokens":
            out = {"max_completion_tokens" if k == name else k: v for k, v in out.items()}
        elif name == "temperature":
            del out[name]
        elif name in ("logprobs", "top_logprobs") and name in out:
            fewer = [n for n in map(int, _NUMBERS.findall(words)) if isinstance(top, int) and 0 < n < top]
            if fewer:
                out["top_logprobs"] = max(fewer)
            else:
                del out["logprobs"], out["top_logprobs"]
    return out if out != sent else None


def difference(asked: dict[str, object], sent: dict[str, object]) -> str:
    """What was asked for and is not sent, and what is sent in its place, in words."""
    changed = ", ".join(f"{k}={asked[k]:g}" for k in asked if sent.get(k) != asked[k])
    instead = ", ".join(f"{k}={sent[k]:g}" for k in sent if sent[k] != asked.get(k))
    return f"{changed} {'became ' + instead if instead else 'left out'}"
