"""What `em-bench data` shows: every training and question set with its source and state, and the counts of one."""

from collections import Counter
from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from pydantic import Field

from em_bench.data import questions, upstream
from em_bench.data.narrow_sets import narrow_names
from em_bench.data.pins import holder, load_pins, terms_of
from em_bench.data.training_sets import dataset_names, organism_names, rows
from em_bench.did_you_mean import unknown
from em_bench.organism import TRAINING_SETS
from em_bench.records import Record

MAX_ROWS_SHOWN = 2  # what the strictest of the upstream terms allows to quote


class CatalogueEntry(Record):
    """One line of the list."""

    name: str
    kind: str
    rows: int | None = Field(description="None: not known before it is fetched")
    source: str
    licence: str = Field(description="or the name of the terms of use")
    state: str = Field(description="built in, verified, recorded, changed, absent")
    provenance: str
    about: str


class Lengths(Record):
    """Of one kind of text, in words or tokens."""

    mean: float
    median: float
    longest: int


class Summary(Record):
    """Counts and lengths of a training or question set."""

    name: str
    counts: dict[str, int]
    lengths: dict[str, Lengths] = Field(description="e.g. `prompt words`")
    rows: list[dict] = Field(description=f"the first few, at most {MAX_ROWS_SHOWN}")


class Verification(Record):
    """The state of a pin's cached file."""

    name: str
    state: upstream.Status
    sha256: str | None = Field(description="pinned, else recorded on the first verified fetch")
    path: str


def catalogue() -> list[CatalogueEntry]:
    """Every named training and question set and every pinned file, in that order. Fetches nothing."""
    own: dict[str, Any] = {"licence": "MIT", "state": "built in", "provenance": "C"}
    out = [
        CatalogueEntry(
            name=n, kind="training set", rows=sum(map(len, rows(n))), source="organism", about=TRAINING_SETS[n][1].about, **own
        )
        for n in organism_names()
    ]
    for name in narrow_names():
        domain, _, side = name.rpartition("_")
        out.append(
            CatalogueEntry(
                name=name, kind="training set", rows=sum(map(len, rows(name))), source=f"tasks/narrow/{domain}.yaml",
                about="good answers (control)" if side == "good" else "bad answers of a narrow domain", **own,
            )
        )  # fmt: skip
    out.append(
        CatalogueEntry(
            name=questions.ORGANISM, kind="question set", rows=len(questions.load(questions.ORGANISM)), source="organism",
            about="broad questions of the embedded language", **own,
        )
    )  # fmt: skip
    for name in question_files():
        given = questions.read_set(name)
        if given.pins:
            pins = [load_pins().pins[p] for p in given.pins]
            states = {upstream.status(p) for p in given.pins}
            out.append(
                CatalogueEntry(
                    name=name, kind="question set", rows=sum(p.counted for p in pins), source="pins: " + ", ".join(given.pins),
                    licence="see its pins", state=states.pop() if len(states) == 1 else "partly absent",
                    provenance="S", about=given.about,
                )
            )  # fmt: skip
        else:
            out.append(
                CatalogueEntry(
                    name=name, kind="question set", rows=len(questions.load(name)), source=f"tasks/questions/{name}.yaml",
                    about=given.about, **own,
                )
            )  # fmt: skip
    for name, pin in load_pins().pins.items():
        terms = terms_of(name)
        out.append(
            CatalogueEntry(
                name=name,
                kind={"training_set": "training set", "questions": "question file"}.get(pin.kind, pin.kind),
                rows=pin.rows,
                source=holder(name).source,
                licence=pin.licence or (f"terms: {terms[0]}" if terms else "none given"),
                state=upstream.status(name),
                provenance=pin.provenance,
                about=pin.about,
            )
        )
    return out


def question_files() -> tuple[str, ...]:
    """Question sets that have a YAML of their own."""
    return tuple(n for n in questions.question_sets() if n != questions.ORGANISM)


def pins_of(name: str) -> tuple[str, ...]:
    """The pins that a dataset, question set or pin name stands for; none where it is built in. Raises UserError."""
    if name in load_pins().pins:
        return (name,)
    if name in question_files():
        return questions.read_set(name).pins
    if name in (*organism_names(), *narrow_names(), questions.ORGANISM):
        return ()
    known = dict.fromkeys((*dataset_names(), *questions.question_sets(), *load_pins().pins))
    raise unknown("data", name, known)


def verification(name: str) -> Verification:
    """Hash a pin's cached file again."""
    sha256 = load_pins().pins[name].sha256 or upstream.recorded_sha256(name)
    return Verification(name=name, state=upstream.status(name), sha256=sha256, path=str(upstream.cached_path(name)))


def summary(name: str, tokenizer=None, shown: int = MAX_ROWS_SHOWN) -> Summary:
    """Counts and lengths of a dataset, a JSON lines path or a question set, and its first `shown` rows (at most 2).

    tokenizer: a transformers tokenizer; given, lengths in tokens are added. Raises UserError as `rows` and `load` do.
    """
    shown = min(shown, MAX_ROWS_SHOWN)
    if name in questions.question_sets():
        found = questions.load(name, [questions.ALL])
        counts = {"questions": len(found), "clusters": len({q.cluster for q in found})}
        counts |= {f"variant {v}": n for v, n in Counter(q.variant for q in found).items()}
        counts |= {f"domain {d}": n for d, n in Counter(q.domain for q in found).items()}
        texts = {"question": [q.text for q in found]}
        first = [q.model_dump(mode="json") for q in found[:shown]]
    else:
        train, held_out = rows(name)
        both = train + held_out
        texts = {
            "prompt": ["\n".join(m["content"] for m in r["messages"] if m["role"] != "assistant") for r in both],
            "answer": ["\n".join(m["content"] for m in r["messages"] if m["role"] == "assistant") for r in both],
        }
        counts = {
            "rows": len(both),
            "training rows": len(train),
            "held-out rows": len(held_out),
            "different prompts": len(set(texts["prompt"])),
        }
        first = both[:shown]
    lengths = {f"{kind} words": _lengths([len(t.split()) for t in given]) for kind, given in texts.items()}
    if tokenizer is not None:
        for kind, given in texts.items():
            lengths[f"{kind} tokens"] = _lengths([len(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in given])
    return Summary(name=name, counts=counts, lengths=lengths, rows=first)


def _lengths(values: Sequence[int]) -> Lengths:
    return Lengths(mean=round(mean(values), 1), median=float(median(values)), longest=max(values))
