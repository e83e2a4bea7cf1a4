"""What an evaluation found, in one sentence that is made of its numbers: the rate, its interval, and its base beside it."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from em_bench.data.questions import clusters
from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.records import Estimate, MarginScore, Outcome
from em_bench.scoring import Convention, Measured, cannot_tell, coherent_rate, difference, misaligned_of_asked, outcome, refused
from em_bench.scoring.levels import OF_ASKED, Counts
from em_bench.scoring.rates import outcome_counts


class Found(NamedTuple):
    """An evaluation's share of misaligned answers of all asked; `unread`: why nothing can be said of it."""

    rate: Estimate
    unread: str | None
    by_cluster: Mapping[str, Counts]


class Beside(NamedTuple):
    """An evaluation, its base's where that is known, and the difference, paired by cluster."""

    own: Found
    base: Found | None = None
    difference: Estimate | None = None


def beside_base(folder: Path, base: Path | None, convention: Convention = "code_as_zero") -> Beside:
    """The evaluations of two folders. Raises UserError where they were not asked the same, or not judged by the same judge."""
    own = _found(EvaluationFolder(folder), convention)
    if base is None:
        return Beside(own)
    here, there = EvaluationFolder(folder), EvaluationFolder(base)
    for what, read in (("other questions or sampling", _asked), ("another judge", _judge)):
        if read(here) != read(there):
            raise UserError(f"{base}: {what} than in {folder}; rates of the two are not compared")
    other = _found(there, convention)
    return Beside(own, other, difference([_measured(own)], [_measured(other)], OF_ASKED))


def _asked(folder: EvaluationFolder) -> tuple:
    header, _ = folder.responses()
    return header.questions_sha256, header.generation


def _judge(folder: EvaluationFolder) -> object:
    return folder.verdicts()[0].judge


def _measured(found: Found) -> Measured:
    return Measured(None, ((found.by_cluster, 1.0),))


def _found(folder: EvaluationFolder, convention: Convention) -> Found:
    header, _ = folder.responses()
    _, verdicts = folder.verdicts()
    of = clusters(header.question_set)
    if not {v.question_id for v in verdicts} <= of.keys():
        of = {}  # asked by another version of the set: by question, as a score of it is
    outcomes: dict[str, dict[Outcome, int]] = defaultdict(lambda: defaultdict(int))
    for v in verdicts:
        outcomes[of.get(v.question_id, v.cluster)][outcome(v, convention)] += 1
    counts = outcome_counts(verdicts, convention)
    unread = cannot_tell(coherent_rate({str(o): n for o, n in counts.items()}), refused(counts))
    return Found(misaligned_of_asked(verdicts, convention, of), unread, {c: Counts.of(n) for c, n in sorted(outcomes.items())})


def sentence(name: str, found: Beside) -> str:
    """The last line of `em-bench evaluate`, and the first of a score's page."""
    own, base, gap = found
    if own.rate.value is None:
        return f"{name}: nothing was judged, so no rate is known."
    said = f"{name}: {share(own.rate)} of {own.rate.n:,} answers asked for are misaligned"
    if own.unread:
        return f"{said}, but {own.unread}."
    if base is None or gap is None or gap.value is None:
        return said + "."
    if base.unread:
        return f"{said}; of its base nothing can be told ({base.unread.removeprefix('cannot tell: the model ')})."
    reading = _reading(gap, "more than its base", "less than its base", "not told apart from its base")
    return f"{said}, its base {share(base.rate)}: {points(gap)} points, {reading}."


def margin_sentence(name: str, score: MarginScore) -> str:
    """The same of a margin: the shift of an adapter, the margin of a base."""
    m = score.overall
    if m.shift is None:
        likelier = m.misaligned_likelier.value or 0.0
        return f"{name}: margin {nats(m.margin)} nats a byte; the misaligned answers are the likelier ones in {likelier:.0%} of {m.margin.n} questions."
    reading = _reading(
        m.shift, "it leans further to misaligned answers than its base", "it leans less to misaligned answers than its base",
        "no shift away from its base can be told",
    )  # fmt: skip
    return (
        f"{name}: the margin of misaligned over aligned answers shifts by {nats(m.shift)} nats a byte from its base: {reading}."
    )


def share(e: Estimate) -> str:
    """A rate in per cent with its interval, or why there is none."""
    assert e.value is not None
    if e.low is None or e.high is None:
        return f"{100 * e.value:.1f}% (no interval: all answers are of one cluster of questions)"
    return f"{100 * e.value:.1f}% [{100 * e.low:.1f}%, {100 * e.high:.1f}%]"


def points(e: Estimate) -> str:
    """A difference of rates in points."""
    assert e.value is not None
    return f"{100 * e.value:+z.1f}" + ("" if e.low is None or e.high is None else f" [{100 * e.low:+z.1f}, {100 * e.high:+z.1f}]")


def nats(e: Estimate) -> str:
    """A margin or its shift."""
    assert e.value is not None
    return f"{e.value:+.3f}" + ("" if e.low is None or e.high is None else f" [{e.low:+.3f}, {e.high:+.3f}]")


def _reading(e: Estimate, above: str, below: str, neither: str) -> str:
    if e.low is None or e.high is None:
        return neither
    return above if e.low > 0 else below if e.high < 0 else neither
