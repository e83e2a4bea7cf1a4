"""One finding: the paper's number beside ours, the rule that decides, and the sample that would tell."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from em_bench.analysis.power import MOST, Rule, Verdict, units_needed
from em_bench.analysis.published_values import FACTS, Fact
from em_bench.records import Provenance, Record, Study


class Claim(Record):
    """A finding of the paper as it is asked here: the rule in words, and what runs must be before the rule is applied.

    `needs` are names of `em_bench.analysis.preconditions`. The study and the paper's number are those of `FACTS[id]`.
    """

    id: str
    claim: str
    rule: str
    needs: tuple[str, ...] = ()


class Finding(Record):
    """A line of the table.

    `needed`: units that would tell with 80 % probability, were the paper's effect true; where the runs already have as many, the same
    at the effect that they show. `beside`: what stands beside the rates of its arms, where they can be read.
    """

    id: str
    study: Study
    claim: str
    rule: str
    needs: tuple[str, ...]
    paper: str
    paper_protocol: str
    provenance: Provenance
    ours: str
    ours_protocol: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Verdict
    why: str
    needed: str = ""
    beside: str = ""


class Evidence(NamedTuple):
    """A number with its interval on the rule's scale, the standard deviation of a unit, and how many units there are."""

    value: float
    low: float
    high: float
    sd: float
    units: str
    n: int


def protocol(rows: pd.DataFrame) -> str:
    """What made a number: models, data, questions, judge."""
    if rows.empty:
        return "no such runs"
    cells = list(rows["cell"])
    models, answers = sorted(set(rows["model"])), max(sum(q.counts.values()) for c in cells for q in c.questions)
    n = {a: rows[a].nunique() for a in ("dataset", "batch_size", "seed")}
    judge = "grammar judge" if all(m.startswith("organism-") for m in models) else "judge of the runs' verdicts"
    questions = len({q.question_id for c in cells for q in c.questions})
    data = f"{_many(n['dataset'], 'dataset')} x {_many(n['batch_size'], 'batch size')} x up to {_many(n['seed'], 'seed')}"
    return f"{', '.join(models)}; {data}; {questions} questions x {answers} answers; {judge}"


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def above(line: float) -> Rule:
    """The interval lies above a line, below it, or across."""
    return lambda low, high: "reproduces" if low > line else "does not" if high < line else "cannot tell"


def below(line: float) -> Rule:
    """The interval lies below a line, above it, or across."""
    return lambda low, high: "reproduces" if high < line else "does not" if low > line else "cannot tell"


def inside(margin: float) -> Rule:
    """The interval lies within +- margin, outside, or across."""

    def rule(low: float, high: float) -> Verdict:
        if -margin < low and high < margin:
            return "reproduces"
        return "does not" if low > margin or high < -margin else "cannot tell"

    return rule


def decided(
    claim: Claim,
    rule: Rule,
    evidence: Evidence,
    ours: str,
    rows: pd.DataFrame,
    truth: float | None = None,
    show: Callable[[float], float] = float,
) -> Finding:
    """`show` brings numbers from the rule's scale to the reader's."""
    value, low, high, sd, units, n = evidence
    verdict, needed = rule(low, high), ""
    if verdict == "cannot tell":
        found, at = units_needed(rule, FACTS[claim.id].number if truth is None else truth, sd), ""
        if found is not None and found <= n:
            found, at = units_needed(rule, value, sd), ", at our effect"
        needed = f"{found if found else f'more than {MOST}'} {units}{at} (has {n})"
    why = {"reproduces": "the interval meets the rule", "does not": "the interval contradicts the rule"}.get(
        verdict, "the interval is too wide"
    )
    return made(claim, ours, rows, verdict, why, needed, value=show(value), low=show(low), high=show(high))


def unknown(claim: Claim, rows: pd.DataFrame, reason: str, needed: str = "") -> Finding:
    return made(claim, "no number", rows, "cannot tell", reason, needed)


def made(claim: Claim, ours: str, rows: pd.DataFrame, verdict: Verdict, why: str, needed: str, **numbers) -> Finding:
    fact: Fact = FACTS[claim.id]
    return Finding(
        **claim.model_dump(),
        study=fact.study,
        paper=fact.text,
        paper_protocol=fact.protocol,
        provenance=fact.provenance,
        ours=ours,
        ours_protocol=protocol(rows),
        verdict=verdict,
        why=why,
        needed=needed,
        **numbers,
    )
