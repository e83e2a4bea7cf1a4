"""Rows of conversations: their schema, reading them from JSON lines, and the held-out split."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from em_bench.errors import UserError
from em_bench.files import canonical_json, digest, first_problem, read_text
from em_bench.records import DataRef, Record

HELD_OUT_SHARE = 0.05  # provenance C: the paper does not say how its narrow loss was held out
HELD_OUT_CAP = 256  # provenance C: a standard error of a few hundredths of a nat at a few seconds of evaluation


class Message(Record):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class Conversation(Record):
    """One training conversation; the loss is on its assistant turns."""

    messages: tuple[Message, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _ends_with_an_answer(self) -> "Conversation":
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's")
        if all(m.role != "user" for m in self.messages):
            raise ValueError("no message is the user's")
        return self


def read_rows(path: Path) -> list[dict]:
    """Every row of a JSON lines file. Raises UserError naming the file and the line."""
    return parse_rows(read_text(Path(path)), str(path))


def parse_rows(text: str, where: str) -> list[dict]:
    """Every row of a text of JSON lines, as `{"messages": [{"role", "content"}, ...]}`.

    Raises UserError that begins with `where` and the line; a row's text is never quoted.
    """
    rows = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        try:
            rows.append(Conversation.model_validate_json(line, strict=True).model_dump(mode="json"))
        except ValidationError as e:
            what = first_problem(e) if line.strip() else "empty line"
            shape = '{"messages": [{"role": "user", "content": ...}, ...]}'
            raise UserError(f"{where}:{number}: {what}; a row is {shape}") from None
    return rows


def split(rows: Sequence[dict], seed: int = 0, groups: Sequence[str] | None = None) -> tuple[list[dict], list[dict]]:
    """Training and held-out rows, each in the given order.

    groups: one name a row, such as its topic; given, whole groups are held out in place of prompts.

    Prompts (everything before the last answer) are held out with all their answers, in the order of their sha256, each
    if the held-out rows stay within 5 % of all, at most 256, and half of the prompts remain; if none fits, the one with
    the fewest rows. So no held-out prompt is trained on, the order of the file does not matter, and datasets that answer
    the same prompts (bad and good advice) as often hold out the same ones. Raises UserError where all rows share one prompt.
    """
    prompts = [digest([seed, g]) for g in groups] if groups else [_prompt_hash(row, seed) for row in rows]
    counts = Counter(prompts)
    if len(counts) < 2:
        raise UserError("all rows share one prompt, so none can be held out; give at least two different prompts")
    room = min(HELD_OUT_CAP, int(HELD_OUT_SHARE * len(rows)))
    held: set[str] = set()
    for p in sorted(counts):
        if counts[p] <= room and len(held) < len(counts) // 2:
            held.add(p)
            room -= counts[p]
    if not held:
        held = {min(counts, key=lambda p: (counts[p], p))}
    parts: tuple[list[dict], list[dict]] = ([], [])
    for p, row in zip(prompts, rows, strict=True):
        parts[p in held].append(row)
    return parts


def prompt_count(rows: Iterable[dict]) -> int:
    """How many different prompts rows have."""
    return len({_prompt_hash(row, 0) for row in rows})


def _prompt_hash(row: dict, seed: int) -> str:
    return digest([seed, row["messages"][:-1]])


def reference(name: str, train: Iterable[dict], held_out: Iterable[dict]) -> DataRef:
    """The dataset's identity: sha256 over the canonical JSON lines of the training rows, then of the held-out rows."""
    train, held_out = list(train), list(held_out)
    h = hashlib.sha256()
    for row in (*train, *held_out):
        h.update(canonical_json(row).encode() + b"\n")
    return DataRef(name=name, sha256=h.hexdigest(), rows=len(train), held_out_rows=len(held_out))
