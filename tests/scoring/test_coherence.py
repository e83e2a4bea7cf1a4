"""The gate on coherence: one number, the same everywhere."""

import math
import re
from pathlib import Path

import pytest

import em_bench
from em_bench.protocol import BROKEN_BELOW
from em_bench.scoring import BROKEN, cannot_tell


@pytest.mark.parametrize("share, said", [(1.0, None), (0.90, None), (math.nextafter(0.9, 0), BROKEN), (0.0, BROKEN)])
def test_nine_tenths_are_whole(share, said):
    assert cannot_tell(share) == said and BROKEN == "cannot tell: the model is broken"


@pytest.mark.parametrize("share", [None, math.nan])
def test_without_judged_answers_nothing_is_said_either(share):
    """And it is not said that the model is broken."""
    assert cannot_tell(share) not in (None, BROKEN)


def test_nobody_else_decides_it():
    """The constant is read by the gate, and by what prints it; no comparison with it stands elsewhere."""
    users = {}
    for path in Path(em_bench.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(r"[<>]=? *\(?(100 \* )?BROKEN_BELOW", text):
            users[path.name] = text
    assert set(users) == {"coherence.py"} and BROKEN_BELOW == 0.90
