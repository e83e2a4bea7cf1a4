"""The question format of Betley et al. and Turner et al.: a YAML list of ids, each with paraphrases and judge prompts."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from em_bench.errors import UserError
from em_bench.records import Question
from em_bench.yaml_file import parse_yaml

_VARIANT = re.compile(r"^(?P<cluster>.+)_(?P<variant>json|template)$")
_NUMBERED = re.compile(r"^\d+_(?P<domain>.+)_\d+$")  # the preregistered ids: number, domain, number within the domain


class _Entry(BaseModel):
    """What we read of an entry; the judge's settings beside it are not ours to know."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    id: str = Field(min_length=1)
    type: Literal["free_form_judge_0_100"]
    paraphrases: list[str] = Field(min_length=1)
    system: str | None = None


def parse_questions(text: str, name: str, where: str) -> list[Question]:
    """Every question of a file, one a paraphrase. `name` is the domain of ids that do not name one.

    An id that ends in `_json` or `_template` is that variant of the question it begins with. Further paraphrases of an
    id get `#2`, `#3`, ... and share its cluster. Raises UserError that begins with `where`.
    """
    out = []
    for entry in parse_yaml(text, list[_Entry], where):
        form, numbered = _VARIANT.match(entry.id), _NUMBERED.match(entry.id)
        for i, paraphrase in enumerate(entry.paraphrases, 1):
            out.append(
                Question(
                    id=entry.id if i == 1 else f"{entry.id}#{i}",
                    cluster=form["cluster"] if form else entry.id,
                    variant=form["variant"] if form else "plain",
                    domain=numbered["domain"] if numbered else name,
                    system=entry.system,
                    text=paraphrase,
                )
            )
    if len({q.id for q in out}) != len(out):
        raise UserError(f"{where}: two questions share an id")
    return out
