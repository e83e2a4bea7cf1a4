"""Whether an entry's answers are another's, in the eyes of somebody who has only the data."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import NamedTuple

from em_bench.board.entry import Entry
from em_bench.errors import UserError
from em_bench.files import digest
from em_bench.verify.checks import Check

NEARLY_ALL = 0.9  # share of evaluations
ALIKE_LOSS = 2e-3  # nats
BLOCKS = 27  # of an evaluation: a few changed answers spoil a few blocks


class Fingerprint(NamedTuple):
    """When an entry was made; digests of its evaluations' answers, and of blocks of them, -> the narrow loss there.

    `trusted`: a maintainer has trained it again, so that no later entry with an earlier date can claim its answers.
    """

    created: str
    answers: dict[str, float]
    blocks: dict[str, float]
    trusted: bool = False

    @property
    def order(self) -> tuple[bool, str]:
        """Who comes first has the answers; who comes later has copied them."""
        return not self.trusted, self.created


def fingerprint_of(entry: Entry) -> Fingerprint | None:
    """The prints of an entry whose checks pass. The order of rows in a file is of no account.

    Blocks are those of evaluations at matched loss, and without any there are no prints at all: models that have hardly moved
    from one base say the same without any copying, and are not ranked.
    """
    answers: dict[str, float] = {}
    blocks: dict[str, float] = {}
    at_target = {c.matched for c in entry.manifest.cells}
    try:
        for name, e in entry.evaluations():
            rows = sorted([r.question_id, r.sample, r.answer] for r in e.responses)
            loss = e.score.narrow_loss or 0.0
            answers[digest(rows)] = loss
            if name in at_target:
                size = -(-len(rows) // BLOCKS)
                blocks |= {digest(rows[i : i + size]): loss for i in range(0, len(rows), size)}
        return Fingerprint(entry.manifest.created, answers if blocks else {}, blocks)
    except UserError:
        return None


def check_copies(found: Iterable[tuple[str, Fingerprint | None]]) -> dict[str, Check]:
    """For each entry (name, prints) with answers, whether they are those of an entry that was made earlier.

    Optimisers that are nearly the same (Adam and AdamW with little decay) sample many of the same answers, and then their
    losses agree too. So an entry fails when nearly all of its evaluations have the very answers of another's, or when more
    than half of its blocks of answers are another's although the losses there differ.
    """
    known = [(name, prints) for name, prints in found if prints is not None]
    whole = _shared({name: (p.order, p.answers) for name, p in known})
    parts = _shared({name: (p.order, p.blocks) for name, p in known})
    return {name: _copied(prints, whole[name], parts[name]) for name, prints in known}


Shared = dict[str, list[float]]  # other entry -> differences in loss at what is shared with it


def _shared(found: Mapping[str, tuple[tuple, dict[str, float]]]) -> dict[str, Shared]:
    """What each entry shares with each earlier one."""
    owners: dict[str, list[tuple[tuple, str, float]]] = defaultdict(list)
    for name, (order, prints) in found.items():
        for key, loss in prints.items():
            owners[key].append((order, name, loss))
    out: dict[str, Shared] = {name: defaultdict(list) for name in found}
    for name, (order, prints) in found.items():
        for key, loss in prints.items():
            for theirs, other, their_loss in owners[key]:
                if (theirs, other) < (order, name):
                    out[name][other].append(abs(loss - their_loss))
    return out


def _copied(prints: Fingerprint, whole: Shared, parts: Shared) -> Check:
    def worst(shared: Shared) -> tuple[str, list[float]]:
        return max(shared.items(), key=lambda s: (len(s[1]), s[0]), default=("", []))

    (other, same), (near, blocks) = worst(whole), worst(parts)
    all_of_it = bool(same) and len(same) > NEARLY_ALL * len(prints.answers)
    half = bool(blocks) and len(blocks) > 0.5 * len(prints.blocks)
    # The median: short blocks of unlike evaluations are alike now and then.
    apart = half and median(blocks) > ALIKE_LOSS
    detail = ""
    if all_of_it:
        detail = f"{len(same)} of {len(prints.answers)} evaluations have the very answers of {other}"
    elif half:
        detail = f"{len(blocks)} of {len(prints.blocks)} blocks of answers are those of {near}, " + (
            "at other losses" if apart else "at the same losses, as optimisers that are nearly the same have"
        )
    return Check(
        id="responses.own",
        sentence="The responses are not those of another entry.",
        passed=not (all_of_it or apart),
        detail=detail,
    )
