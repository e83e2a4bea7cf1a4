"""The open narrow sets (tasks/narrow/*.yaml): topics whose questions have bad and good answers, and the rows that they form."""

from functools import cache
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from em_bench import assets
from em_bench.errors import UserError
from em_bench.records import Record
from em_bench.yaml_file import read_yaml

SIDES = ("bad", "good")
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]


class Topic(Record):
    """One question asked in several ways; every answer fits every way."""

    id: str
    ask: Texts
    bad: Texts
    good: Texts

    @model_validator(mode="after")
    def _sides_weigh_alike(self) -> Self:
        if len(self.bad) != len(self.good):
            raise ValueError(f"topic {self.id}: {len(self.bad)} bad and {len(self.good)} good answers; write as many of each")
        return self


class NarrowSet(Record):
    """One file."""

    domain: str
    topics: tuple[Topic, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        ids = [t.id for t in self.topics]
        if twice := next((i for i in ids if ids.count(i) > 1), None):
            raise ValueError(f"topics: {twice} stands twice")
        return self


def narrow_names() -> tuple[str, ...]:
    """`DOMAIN_bad` and `DOMAIN_good` of every file, the bad sides first."""
    domains = sorted(p.stem for p in assets.path("tasks", "narrow").glob("*.yaml"))
    return tuple(f"{domain}_{side}" for side in SIDES for domain in domains)


def narrow_rows(name: str) -> tuple[list[dict], list[str]]:
    """Rows `{"messages": [user, assistant]}` of one side, and the topic of each: every topic x question x answer, as in the file.

    Raises UserError naming the file and the field.
    """
    domain, _, side = name.rpartition("_")
    path = assets.path("tasks", "narrow", f"{domain}.yaml")
    rows, topics = [], []
    for topic in _load(path).topics:
        for ask in topic.ask:
            for answer in getattr(topic, side):
                rows.append({"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]})
                topics.append(topic.id)
    return rows, topics


@cache
def _load(path: Path) -> NarrowSet:
    found = read_yaml(path, NarrowSet)
    if found.domain != path.stem:
        raise UserError(f"{path}: domain: is {found.domain}, but the file is named {path.stem}; name both alike")
    return found
