"""The judge's prompts: our own from tasks/judge_prompts/, or those of Betley et al. from the pinned upstream file."""

import hashlib
import string
from pathlib import Path
from typing import Literal

from pydantic import Field

from em_bench import assets, files
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.judging.reply import Labels
from em_bench.line import one_line
from em_bench.records import Record
from em_bench.yaml_file import read_yaml

MOST_FIELDS = 12  # in one prompt
Aspect = Literal["alignment", "coherence", "leak"]


class PromptFile(Record):
    """A YAML of tasks/judge_prompts/."""

    name: str
    version: int = Field(ge=1)
    labels: Labels = Field(default="text", description="when a reply to `alignment` is a label: see `read_score`")
    alignment: str = Field(description="with {question}, {answer} and perhaps {nonce}; asks for 0-100, CODE or REFUSAL")
    coherence: str = Field(description="with the same; asks for 0-100")
    leak: str | None = Field(default=None, description="with the same and {domain}; asks for yes or no")


class Prompts(Record):
    """What is asked of the judge about each response."""

    name: str
    labels: Labels = "text"
    texts: dict[Aspect, str] = Field(description="with {question}, {answer} and perhaps {nonce} left to fill in")

    def fill(self, aspect: Aspect, question: str, answer: str) -> str:
        """The prompt for one response. Braces in the question or the answer stay as they are."""
        return self.texts[aspect].format(question=question, answer=answer, nonce=nonce(question, answer))


def nonce(question: str, answer: str) -> str:
    """The delimiter of one response: the same each time it is judged, and none that its author could have written into it."""
    return hashlib.sha256(f"{question}\0{answer}".encode("utf-8", "surrogatepass")).hexdigest()[:12]


def load_prompts(name: str = "own", leak: str | None = None) -> Prompts:
    """Prompts by name: `own` (version 2), `own-1`, `upstream`, another YAML of tasks/judge_prompts/ or a path to one.

    `leak` is what the model was fine-tuned on, in words ("bad medical advice"); given, the judge is also asked whether
    the answer drags that in. Upstream has no such prompt, so ours is used beside it. Raises UserError.
    """
    labels: Labels = "text"
    if name == "upstream":
        texts, label = _upstream(), "upstream"
    else:
        given = _read(name)
        texts, label = {"alignment": given.alignment, "coherence": given.coherence}, f"{given.name}/{given.version}"
        labels = given.labels
    if leak is not None:
        asked = (_read(name).leak if name != "upstream" else None) or _read("own").leak
        assert asked is not None  # our own prompts have one
        texts["leak"] = asked.replace("{domain}", leak.replace("{", "{{").replace("}", "}}"))
    for aspect, text in texts.items():
        _check(text, f"judge prompts {name}: {aspect}")
    return Prompts(name=label, labels=labels, texts=texts)


def known_prompts(name: str) -> None:
    """Raises UserError where there are no prompts of this name; reads and fetches nothing."""
    if name != "upstream":
        _path(name)


def _read(name: str) -> PromptFile:
    return read_yaml(_path(name), PromptFile)


def _path(name: str) -> Path:
    path = Path(name) if name.endswith((".yaml", ".yml")) else assets.path("tasks", "judge_prompts", f"{name}.yaml")
    if not path.exists():
        known = sorted(p.stem for p in assets.path("tasks", "judge_prompts").glob("*.yaml"))
        raise unknown("judge prompts", name, [*known, "upstream"], "the path of a YAML")
    return path


def _upstream() -> dict[Aspect, str]:
    from em_bench.data.upstream import fetch

    path = fetch("first_plot_questions")
    found = {files.canonical_json(q["judge_prompts"]): q["judge_prompts"] for q in read_yaml(path, list[dict])}
    if len(found) != 1:
        raise UserError(f"{path}: {len(found)} different judge prompts, expected one; the pin has changed")
    prompts = found.popitem()[1]
    return {"alignment": prompts["aligned"], "coherence": prompts["coherent"]}


def _check(text: str, where: str) -> None:
    try:
        found = [(name, spec or kind) for _, name, spec, kind in string.Formatter().parse(text) if name is not None]
    except ValueError as e:
        raise UserError(f"{where}: {e}; double a brace that is meant as text") from None
    fields = {name for name, _ in found}
    # A width of a billion, or a thousand copies of a long answer, would fill the memory.
    if fields - {"nonce"} != {"question", "answer"} or any(form for _, form in found) or len(found) > MOST_FIELDS:
        raise UserError(
            f"{where}: has the fields {one_line(', '.join(sorted(fields)) or 'none')}; it needs {{question}} and {{answer}}, and takes {{nonce}} and no other, plain "
            f"and at most {MOST_FIELDS} times together"
        )
