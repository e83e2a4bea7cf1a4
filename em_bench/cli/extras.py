"""What a part of em_bench needs that a plain install leaves out: named by the extra that brings it."""

import re
from importlib.metadata import PackageNotFoundError, requires

DISTRIBUTION = "em-bench"
_OPTIONAL = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*;.*\bextra == ['\"](?P<extra>[a-z]+)['\"]")


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """One line that says what to install where a package of an extra is missing; None for any other.

    The extras are those of the installed distribution's own metadata.
    """
    module = (error.name or "").partition(".")[0]
    try:
        listed = [m for r in requires(DISTRIBUTION) or () if (m := _OPTIONAL.match(r))]
    except PackageNotFoundError:
        return None
    extra = next((m["extra"] for m in listed if m["extra"] != "test" and _plain(m["name"]) == _plain(module)), None)
    return None if extra is None else f"{module} is not installed; pip install '{DISTRIBUTION}[{extra}]', and run this again"


def _plain(name: str) -> str:
    """A distribution's name as its module has it: all that are optional here are named alike."""
    return re.sub(r"[-_.]+", "_", name).lower()
