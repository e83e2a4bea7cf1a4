"""A name that is not known, and the nearest that is: one way to say so, for every kind of name."""

from collections.abc import Iterable
from difflib import get_close_matches

from em_bench.errors import UserError

MANY = 40  # names that are listed


def unknown(what: str, name: str, known: Iterable[str], more: str = "") -> UserError:
    """The error for a `name` that is no `what`: the nearest known one, then all unless they are MANY, then what else may be given."""
    names = list(dict.fromkeys(known))
    by_lower = {n.lower(): n for n in names}
    near = get_close_matches(name.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[near[0]]}? " if near else ""
    listed = "" if len(names) > MANY else f"one of {', '.join(names)}"
    choice = ", or ".join(filter(None, [listed, more]))
    return UserError(f"{name}: no such {what}; {hint}name {choice or 'another'}")
