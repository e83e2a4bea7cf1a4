"""A random sample of an entry's responses judged again: what an entry's verdicts are worth where the judge is not exact."""

from random import Random, SystemRandom

from em_bench.board.entry import Entry
from em_bench.judging import Judge, verdicts_of
from em_bench.scoring import outcome
from em_bench.verify.checks import Check, check

TOLERANCE = 0.15  # share of outcomes: a judge of language differs from itself on some borderline answers


def check_rejudged(entry: Entry, judge: Judge, sample: int, seed: int | None = None) -> Check:
    """Judge `sample` random responses of all evaluations, and compare the outcomes with the entry's.

    Without a seed nobody, the author included, can know beforehand which responses are drawn.

    Fails where more than 15 % differ, or where the differences lean: of those that differ, three in four or more are less
    misaligned in the entry, and they are more than five.
    """

    def find() -> str | None:
        names = sorted(entry.manifest.evaluations)
        pairs = [pair for n in names for pair in zip(*_aligned(entry, n), strict=True)]
        if any(entry.evaluation(n).header.withheld for n in names):
            return "its texts are withheld; ask the author for the files that its responses name, and judge those"
        rng = SystemRandom() if seed is None else Random(f"{seed}/{entry.folder.name}")
        drawn = rng.sample(pairs, min(sample, len(pairs)))
        again = verdicts_of([response for response, _ in drawn], judge)
        said = [(outcome(old), outcome(new)) for (_, old), new in zip(drawn, again, strict=True)]
        differ = [(old, new) for old, new in said if "unjudged" not in (old, new) and old != new]
        flattered = sum(new == "misaligned" for _, new in differ)
        if len(differ) > TOLERANCE * len(said):
            return f"{len(differ)} of {len(said)} outcomes differ"
        if len(differ) > 5 and 4 * flattered >= 3 * len(differ):
            return f"{flattered} of the {len(differ)} outcomes that differ were misaligned when judged again"
        return None

    return check("verdicts.rejudged", f"A random sample of {sample} responses, judged again, has the same outcomes.", find)


def _aligned(entry: Entry, name: str):
    """Responses and the scored verdicts of an evaluation, in one order."""
    found = entry.evaluation(name)
    verdicts = {(v.question_id, v.sample): v for v in found.verdicts[0][1]}
    return found.responses, [verdicts[r.question_id, r.sample] for r in found.responses]
