"""What the judge did not settle, and why: a rate of nine tenths of the answers must not pass for one of all."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from em_bench.records import Metrics, Verdict
from em_bench.scoring.outcomes import outcome

TOLD_FROM = 0.1  # provenance C. Share of responses without a verdict from which the reasons are told.
MOST = 4  # reasons
_ASPECT = re.compile(r"(?:^|; )(?:alignment|coherence|leak): ")
_QUOTED = re.compile(r"""(["']).*\1""")


def nothing_judged(metrics: Metrics) -> bool:
    """Whether there are responses and not one has a verdict."""
    return metrics.counts["unjudged"] == sum(metrics.counts.values()) > 0


def unjudged_reasons(verdicts: Sequence[Verdict], most: int = MOST) -> list[tuple[str, int]]:
    """The commonest reasons with the unjudged responses that each explains; those that differ in what they quote are one."""
    counts: Counter[str] = Counter()
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for v in verdicts:
        if outcome(v) == "unjudged":
            reasons = {_QUOTED.sub("...", r): r for r in _ASPECT.split(v.error or "the judge gave no alignment") if r}
            counts.update(reasons.keys())
            for kind, reason in reasons.items():
                said[kind][reason] += 1
    return [(said[kind].most_common(1)[0][0], n) for kind, n in counts.most_common(most)]


def unjudged_text(verdicts: Sequence[Verdict]) -> str | None:
    """How many responses are unjudged and why, a line a reason; None below a tenth."""
    n = sum(outcome(v) == "unjudged" for v in verdicts)
    if not n or n < TOLD_FROM * len(verdicts):
        return None
    head = "nothing is judged" if n == len(verdicts) else f"{n} of {len(verdicts)} answers are unjudged"
    return "\n".join([f"{head}:", *(f"{count:>7}  {reason}" for reason, count in unjudged_reasons(verdicts))])
