"""Answers to questions that may not be republished: hashes in the place of texts, while the chain of hashes still holds.

The first line names the author's own responses.jsonl by `withheld`, which the verdicts are of; each text stands as sha256:HEX of
its UTF-8 bytes. Whoever is given that file finds both: its sha256 is `withheld`, and `withhold` makes the published lines of it.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from em_bench.data.questions import known_texts, may_be_published
from em_bench.evaluation_folder import SCORE, VERDICTS, EvaluationFolder, verdicts_name
from em_bench.files import sha256_file, write_jsonl
from em_bench.records import Response, ResponsesHeader

TEXTS = ("system", "question", "answer", "thinking")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def hash_of(text: str) -> str:
    """What stands for a text."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def withhold(header: ResponsesHeader, rows: Iterable[Response], sha256: str) -> tuple[ResponsesHeader, list[Response]]:
    """The same answers without a text; `sha256` is that of the file with the texts."""
    hashed = [r.model_copy(update={t: hash_of(v) for t in TEXTS if (v := getattr(r, t)) is not None}) for r in rows]
    return header.model_copy(update={"withheld": sha256}), hashed


def publishable(at: EvaluationFolder, scratch: Path) -> EvaluationFolder:
    """The evaluation itself, or where its questions may not be republished a copy below `scratch` without their texts."""
    header, rows = at.responses()
    if header.withheld or may_be_published(header.question_set):
        return at
    made = EvaluationFolder(scratch / at.path.name)
    write_jsonl(made.responses_file, *withhold(header, rows, sha256_file(at.responses_file)))
    for file in at.path.iterdir():
        if file.is_file() and (file.name == SCORE or file.name.startswith(VERDICTS.partition(".")[0])):
            shutil.copyfile(file, made.path / file.name)
    assert (made.path / verdicts_name()).exists()
    return made


def withheld_texts(header: ResponsesHeader, responses: Sequence[Response]) -> str | None:
    """What is wrong with texts that are withheld, or None: only where they have to be, all of them, and of the set's own questions."""
    if header.withheld is None:
        return None
    if may_be_published(header.question_set):
        return f"texts are withheld, and those of {header.question_set} may be published; give them"
    texts = known_texts(header.question_set)
    for r in responses:
        if any(v is not None and not _HASH.fullmatch(v) for v in (getattr(r, t) for t in TEXTS)):
            return f"{r.question_id}: some texts are withheld and others are not"
        if texts and (r.question_id not in texts or r.question != hash_of(texts[r.question_id])):
            return f"{r.question_id}: is not a question of {header.question_set}, or has another text"
    return None
