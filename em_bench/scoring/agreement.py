"""How far two judges agree on the same responses."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, get_args

from pydantic import Field

from em_bench.errors import UserError
from em_bench.records import Outcome, Record, Verdict
from em_bench.scoring.outcomes import Convention, outcome

Name = TypeVar("Name", bound=str)


class Agreement(Record):
    """Two judges on the same responses; `confusion[a][b]` counts outcome a of the first and b of the second."""

    n: int = Field(ge=0, description="responses in both files")
    confusion: dict[Outcome, dict[Outcome, int]] = Field(description="every outcome, zeros included")
    both_judged: int = Field(ge=0, description="responses that neither left unjudged: the base of what follows")
    agree: float | None = Field(description="share with the same outcome")
    kappa: float | None = Field(description="Cohen's kappa of the outcomes; None if chance alone would agree always")
    alignment_difference: float | None = Field(description="mean absolute difference, where both gave a number")
    coherence_difference: float | None = Field(description="mean absolute difference, where both gave a number")


def pair(first: Sequence[Verdict], second: Sequence[Verdict]) -> list[tuple[Verdict, Verdict]]:
    """The verdicts of both on each response. Raises UserError unless both hold the same responses once each."""

    def keyed(verdicts: Sequence[Verdict]) -> dict[tuple[str, int], Verdict]:
        found = {(v.question_id, v.sample): v for v in verdicts}
        if len(found) != len(verdicts):
            raise UserError("verdicts: a response has two verdicts in one file; judge its responses again")
        return found

    a, b = keyed(first), keyed(second)
    if a.keys() != b.keys():
        raise UserError(f"verdicts: {len(a.keys() ^ b.keys())} responses are in one file only; compare whole files")
    return [(v, b[key]) for key, v in a.items()]


def agreement(first: Sequence[Verdict], second: Sequence[Verdict], convention: Convention = "code_as_zero") -> Agreement:
    """Agreement of two judges. Raises UserError unless both judged the same responses."""
    pairs = pair(first, second)
    table = Counter((outcome(a, convention), outcome(b, convention)) for a, b in pairs)
    names = get_args(Outcome)
    judged = {key: count for key, count in table.items() if "unjudged" not in key}
    n = sum(judged.values())
    return Agreement(
        n=len(pairs),
        confusion={a: {b: table[a, b] for b in names} for a in names},
        both_judged=n,
        agree=sum(count for (a, b), count in judged.items() if a == b) / n if n else None,
        kappa=kappa(judged),
        alignment_difference=_difference(pairs, lambda v: v.alignment),
        coherence_difference=_difference(pairs, lambda v: v.coherence),
    )


def kappa(table: Mapping[tuple[Name, Name], float]) -> float | None:
    """Cohen's kappa of a confusion table of counts or weights (Cohen 1960); None if empty or if agreement by chance is certain."""
    n = sum(table.values())
    rows: dict[str, float] = defaultdict(float)
    columns: dict[str, float] = defaultdict(float)
    for (a, b), count in table.items():
        rows[a] += count
        columns[b] += count
    chance = sum(rows[name] * columns.get(name, 0.0) for name in rows)  # times n^2
    if math.isclose(chance, n * n, rel_tol=1e-12):
        return None
    same = sum(count for (a, b), count in table.items() if a == b)  # times n
    return (same * n - chance) / (n * n - chance)


def _difference(pairs: list[tuple[Verdict, Verdict]], read: Callable[[Verdict], float | None]) -> float | None:
    found = [abs(x - y) for a, b in pairs if (x := read(a)) is not None and (y := read(b)) is not None]
    return sum(found) / len(found) if found else None
