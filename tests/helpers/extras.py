"""What a plain install and each extra bring, by the metadata of the distributions that are installed here."""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def closure(requirements) -> set[str]:
    """The distributions that these bring here, themselves included."""
    found, left = set(), [Requirement(r) for r in requirements]
    seen = set()
    while left:
        r = left.pop()
        name, extras = canonicalize_name(r.name), frozenset(r.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name == "em-bench":
            left += [Requirement(x) for e in extras for x in EXTRAS[e]]
            continue
        try:
            wanted = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        environments = [{"extra": e} for e in extras or {""}]
        left += [q for q in map(Requirement, wanted) if not q.marker or any(q.marker.evaluate(e) for e in environments)]
    return found
