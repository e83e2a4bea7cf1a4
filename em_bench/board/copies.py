"""Whether an entry's answers, adapters or logs are another's, in the eyes of somebody who has only the data."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import NamedTuple

from em_bench.board.entry import Entry
from em_bench.errors import UserError
from em_bench.files import digest
from em_bench.verify.checks import Check

NEARLY_ALL = 0.9  # share of evaluations
MOST = 0.8  # share of telling blocks: Lion with and without the spectral term, trained apart, have 0.59 of them in common
ALIKE_LOSS = 2e-3  # nats
BLOCKS = 27  # of an evaluation: a few changed answers spoil a few blocks


class Fingerprint(NamedTuple):
    """Digests of an entry's answers at its losses and at its end, and of blocks of them, -> the narrow loss there; of its runs' adapters and losses.

    `common`: blocks that several of its runs have. `order`: when it was taken, from the ledger (None: not yet); whatever dates an entry claims are of no account.
    """

    answers: dict[str, float]
    blocks: dict[str, float]
    runs: dict[str, str]  # digest of an adapter, or of a log's losses -> run id
    order: int | None = None
    common: frozenset[str] = frozenset()


def fingerprint_of(entry: Entry) -> Fingerprint | None:
    """The prints of an entry whose checks pass. The order of rows in a file, and which sample an answer is, are of no account.

    Evaluations at the early stop alone are left out: models that have hardly moved from one base say the same without copying.
    """
    answers: dict[str, float] = {}
    blocks: dict[str, float] = {}
    owners: dict[str, set[str]] = defaultdict(set)
    runs: dict[str, str] = {}
    try:
        for cell in entry.manifest.cells:
            run, log = entry.runs[cell.run_id], entry.log(cell.run_id)
            runs |= {run.adapter_sha256: cell.run_id, digest([r.loss for r in log]): cell.run_id}
            for step in sorted(cell.evaluated)[-3:]:
                e = entry.evaluation(cell.evaluated[step])
                rows = sorted([r.question_id, r.answer] for r in e.responses)
                loss = next((r.held_out_loss for r in log if r.step == step), None) or 0.0
                answers[digest(rows)] = loss
                size = -(-len(rows) // BLOCKS)
                for block in (digest(rows[i : i + size]) for i in range(0, len(rows), size)):
                    blocks[block] = loss
                    owners[block].add(cell.run_id)
        return Fingerprint(answers, blocks, runs, common=frozenset(b for b, of in owners.items() if len(of) > 1))
    except UserError:
        return None


def check_copies(found: Iterable[tuple[str, Fingerprint | None]]) -> dict[str, Check]:
    """For each entry (name, prints) with answers, whether they are those of an entry that was taken earlier.

    Optimisers that are nearly the same (Adam and AdamW with little decay) sample the same answers, and then their losses agree
    in all but the last digits, while no adapter and no log is the other's. So an entry fails when half of its runs have the
    adapter or the losses of another's, or when nearly all of its evaluations or most of its blocks of answers are
    another's and the losses there are not near: they differ, or are copied to the last digit. Blocks that several runs of the other
    have tell nothing: it answers as the base does. Who also makes up near losses is found by training cells again, without which
    nobody is ranked.
    """
    known = [(name, prints) for name, prints in found if prints is not None]
    nothing: frozenset[str] = frozenset()
    whole = _shared({name: (p, p.answers, nothing) for name, p in known})
    parts = _shared({name: (p, p.blocks, p.common) for name, p in known})
    runs = _shared({name: (p, dict.fromkeys(p.runs, 0.0), nothing) for name, p in known})
    telling = {name: len(p.blocks) - len(p.common) for name, p in known}
    return {name: _copied(prints, whole[name], parts[name], runs[name], telling) for name, prints in known}


Shared = dict[str, list[float]]  # other entry -> differences in loss at what is shared with it


def _shared(found: Mapping[str, tuple[Fingerprint, dict[str, float], frozenset[str]]]) -> dict[str, Shared]:
    """What each entry shares with each earlier one, but for what of the earlier one tells nothing."""
    place = {name: (p.order is None, p.order or 0, name) for name, (p, _, _) in found.items()}
    owners: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for name, (_, prints, common) in found.items():
        for key, loss in prints.items():
            if key not in common:
                owners[key].append((name, loss))
    out: dict[str, Shared] = {name: defaultdict(list) for name in found}
    for name, (_, prints, _) in found.items():
        for key, loss in prints.items():
            for other, their_loss in owners[key]:
                if place[other] < place[name]:
                    out[name][other].append(abs(loss - their_loss))
    return out


def _copied(prints: Fingerprint, whole: Shared, parts: Shared, runs: Shared, telling: Mapping[str, int]) -> Check:
    """`telling`: entry -> how many of its blocks tell something."""

    def worst(shared: Shared) -> tuple[str, list[float]]:
        return max(shared.items(), key=lambda s: (len(s[1]), s[0]), default=("", []))

    (other, same), (near, blocks), (owner, trained) = worst(whole), worst(parts), worst(runs)
    said, at, passed = "", "", True
    if 4 * len(trained) > len(prints.runs):  # an adapter and a log for each run
        said, passed = f"{len(trained)} of {len(prints.runs)} adapters and logs are those of {owner}", False
    elif same and len(same) > NEARLY_ALL * len(prints.answers):
        said = f"{len(same)} of {len(prints.answers)} evaluations have the very answers of {other}"
        at, passed = _losses(same)
    elif blocks and len(blocks) > MOST * (of := min(telling[near], len(prints.blocks))):
        said = f"{len(blocks)} of {of} telling blocks of answers are those of {near}"
        at, passed = _losses(blocks)
    return Check(
        id="responses.own",
        sentence="The responses, adapters and logs are not those of another entry.",
        passed=passed,
        detail=said + at,
    )


def _losses(apart: list[float]) -> tuple[str, bool]:
    """What is said of the losses at shared answers, from their differences, and whether near optimisers explain it."""
    middle = median(apart)  # short blocks of unlike evaluations are alike now and then
    if middle == 0:
        return ", at the very same losses", False
    if middle > ALIKE_LOSS:
        return ", at other losses", False
    return ", at nearly the same losses, as optimisers that are nearly the same have", True
