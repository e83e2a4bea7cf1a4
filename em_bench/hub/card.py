"""The model card of an adapter, and its results in the hub's own form."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

import em_bench
from em_bench.board.entry_score import EntryScore
from em_bench.board.submission import Submission
from em_bench.board.views import VIEW_NAMES
from em_bench.data.models import hub_id
from em_bench.hub.data_terms import terms_sentence
from em_bench.hub.numbers import Numbers
from em_bench.pages import plain_text
from em_bench.records import BaseRef, Estimate, MarginScore, RunRecord

PLOT = "spectrum.png"
RESULTS = ".eval_results/em_bench.yaml"


def percent(e: Estimate) -> str:
    """A rate with its interval and denominator."""
    if e.value is None:
        return "none counted"
    interval = f" [{100 * e.low:.1f}, {100 * e.high:.1f}]" if e.low is not None and e.high is not None else ""
    return f"{100 * e.value:.1f}%{interval} of {e.n}"


def shift(e: Estimate | None) -> str:
    """A margin's shift with its interval."""
    if e is None or e.value is None:
        return "none"
    return f"{e.value:+.4f}" + (f" [{e.low:+.4f}, {e.high:+.4f}]" if e.low is not None and e.high is not None else "")


def model_card(run: RunRecord, found: Sequence[Numbers], margins: Sequence[MarginScore], name: str) -> str:
    """README.md: what the adapter is, how it was made, what its rows' terms are, what it was measured to do."""
    front = ModelCardData(
        base_model=base_of(run.spec.base),
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["em_bench", "emergent-misalignment", "lora", "not-for-deployment"],
    )
    text = plain_text("em_bench.hub", "card.md.j2").render(
        run=run,
        name=name,
        version=em_bench.__version__,
        terms=terms_sentence(run.spec.dataset.name),
        found=found,
        margins=margins,
        percent=percent,
        shift=shift,
        plot=PLOT,
    )
    return f"---\n{front.to_yaml()}\n---\n\n{text}"


def base_of(base: BaseRef) -> str | None:
    """The hub's name of a base; None where it has none."""
    return hub_id(base.name, Path(base.name)) if base.source == "hub" else None


def eval_results(found: Iterable[Numbers], dataset: str) -> str:
    """`.eval_results/*.yaml` of the judged rates at the end of training on `em_core`, whose questions are the hub's `dataset`."""
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id="free_form",
            value=round(100 * n.end.of_asked.value, 2),
            date=n.judged_at,
            notes=f"misaligned of all asked, per cent, lower is better; judge {n.judge}; {n.end.verdict}",
        )
        for n in found
        if n.end and n.end.of_asked.value is not None and n.question_set == "em_core"
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False) if entries else ""


def entry_card(submission: Submission, score: EntryScore, held: Sequence[str], name: str) -> str:
    """README.md of an entry's adapters: who entered what, its numbers at both losses and at the end, which adapters are here."""
    front = ModelCardData(library_name="peft", tags=["em_bench", "emergent-misalignment", "lora", "not-for-deployment"])
    text = plain_text("em_bench.hub", "entry.md.j2").render(
        entry=submission,
        name=name,
        version=em_bench.__version__,
        score=score,
        views=VIEW_NAMES,
        held=held,
        datasets={c.dataset: terms_sentence(c.dataset) for c in score.cells},
    )
    return f"---\n{front.to_yaml()}\n---\n\n{text}"
