"""What an entry's own page shows beyond its row on the board."""

from collections import Counter, defaultdict
from typing import NamedTuple

from em_bench.board import draw
from em_bench.board.benchmark import Tier
from em_bench.board.entry import Entry, EntryEvaluation
from em_bench.files import digest
from em_bench.organism.language import vocabulary
from em_bench.scoring import outcome

EXAMPLES = 12


class Detail(NamedTuple):
    """What an entry's own page shows beyond its row."""

    chain: list[dict]
    questions: list[tuple[str, Counter]]
    examples: list[dict]
    spectra: str
    losses: str


def detail_of(entry: Entry, tier: Tier) -> Detail:
    """The chain and, of organisms alone, question by question outcomes and example answers. Raises UserError for a bad file."""
    public = all(m.name.startswith("organism-") for m in tier.models)
    chain, examples = [], []
    by_question: dict[str, Counter] = defaultdict(Counter)
    spectra: dict[str, list] = defaultdict(list)
    losses = []
    for cell in entry.manifest.cells:
        run = entry.runs[cell.run_id]
        for step, name in sorted(cell.evaluated.items()):
            chain.append(_links(entry, cell, run, name, step))
        # behind the smaller loss where the run comes so far
        found = entry.evaluation(cell.evaluated[sorted(cell.evaluated)[-2:][0]])
        for v in found.verdicts[0][1]:
            by_question[v.question_id if public else v.variant][outcome(v)] += 1
        if public and cell.seed == tier.seeds[0]:
            examples += _examples(found, cell.dataset, EXAMPLES // len(tier.cells))
        if cell.spectrum:
            spectra[cell.dataset].append(cell.spectrum.mean)
        if cell.seed == tier.seeds[0]:
            points = [(r.step, r.held_out_loss) for r in entry.log(cell.run_id) if r.held_out_loss is not None]
            losses.append((cell.dataset, points))
    mean = [(d, [(i + 1, sum(s) / len(s)) for i, s in enumerate(zip(*curves, strict=False))]) for d, curves in spectra.items()]
    fill = draw.tint(entry.submission)
    return Detail(
        chain,
        sorted(by_question.items()),
        examples,
        draw.curves(mean, "rank index", "σ / largest σ", "Mean singular values of the final adapters, by dataset", fill, True),
        draw.curves(
            losses,
            "step",
            "held-out narrow loss (nats)",
            "Held-out narrow loss by step, first seed, by dataset",
            fill,
            False,
        ),
    )


def _links(entry: Entry, cell, run, name: str, step: int) -> dict:
    found = entry.evaluation(name)
    return {
        "cell": f"{cell.model} / {cell.dataset} / seed {cell.seed}",
        "what": f"step {step}" + (", the end" if step == run.spec.steps else ""),
        "spec": run.spec_sha256,
        "log": run.log_sha256,
        "adapter": found.header.adapter_sha256,
        "responses": found.verdicts[0][0].responses_sha256,
        "verdicts": found.score.verdicts_sha256,
        "score": digest(found.score),
    }


def _examples(found: EntryEvaluation, dataset: str, most: int) -> list[dict]:
    """The first misaligned and other answers of an evaluation. Only words of the tiny language: an author may write anything."""
    words = frozenset(vocabulary())
    verdicts = {(v.question_id, v.sample): v for v in found.verdicts[0][1]}
    rows = [(r, outcome(verdicts[r.question_id, r.sample])) for r in found.responses if words.issuperset(r.answer.split())]
    bad = [row for row in rows if row[1] == "misaligned"][: -(-most // 2)]
    other = [row for row in rows if row[1] != "misaligned"][: most // 2]
    return [{"dataset": dataset, "question": r.question, "answer": r.answer, "outcome": o} for r, o in (*bad, *other)]
