"""Our open questions and rows as data set repositories: JSON lines with a canary in every row, a data sheet in Croissant, the hub's eval.yaml.

A canary is the one of the set's own file. It stands beside the texts, in none of them: what is asked or trained on is unchanged.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import DatasetCardData

import em_bench
from em_bench import assets
from em_bench.data.narrow_sets import SIDES, narrow_rows
from em_bench.data.questions import ALL, answered, load, read_set
from em_bench.did_you_mean import unknown
from em_bench.errors import UserError
from em_bench.files import write_text
from em_bench.pages import plain_text
from em_bench.records import Record
from em_bench.yaml_file import read_yaml

QUESTIONS = "em_core"
CREATOR = "The em_bench contributors"
LICENCE = "https://spdx.org/licenses/MIT.html"
_CANARY = re.compile(r"canary GUID ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isLiveDataset",
    "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
    "source", "subField", "transform",
)  # fmt: skip
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    **{term: f"cr:{term}" for term in _TERMS},
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
}


class Sheet(Record):
    """What a data sheet says beside the counts: an entry of tasks/cards.yaml."""

    about: str
    collection: str
    biases: str
    limits: str
    personal: str
    uses: str
    impact: str
    content: str


class Table(NamedTuple):
    """A file of JSON lines: its name, and its rows, all with the same fields."""

    name: str
    rows: Sequence[dict[str, Any]]

    @property
    def text(self) -> str:
        """As it is written."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)


def publishable_sets() -> tuple[str, ...]:
    """The sets that are ours to publish."""
    return tuple(_sheets())


def _sheets() -> dict[str, Sheet]:
    found: dict[str, Sheet] = read_yaml(assets.path("tasks", "cards.yaml"), dict[str, Sheet])
    return found


def source_of(name: str) -> Path:
    """The file that a set lies in. Raises UserError for one that is not ours to publish."""
    if name not in _sheets():
        raise unknown("set of ours", name, _sheets())
    return assets.path("tasks", *(("questions",) if name == QUESTIONS else ("narrow",)), f"{name}.yaml")


def canary(name: str) -> str:
    """The GUID in the first lines of a set's file."""
    found = _CANARY.search(source_of(name).read_text(encoding="utf-8")[:2000])
    if found is None:
        raise UserError(f"{source_of(name)}: no canary GUID in its first lines; write one")
    return found[1]


def tables(name: str) -> list[Table]:
    """A set's files: of the questions their forms, and the questions with their answers; of narrow rows each side."""
    guid = canary(name)
    if name == QUESTIONS:
        asked = [{**q.model_dump(mode="json"), "system": q.system or "", "canary": guid} for q in load(name, ALL)]
        pairs = [
            {
                "id": q.id,
                "domain": q.domain,
                "text": q.text,
                "aligned": list(q.aligned),
                "misaligned": list(q.misaligned),
                "canary": guid,
            }
            for q in answered(name)
        ]
        return [Table("questions", asked), Table("answers", pairs)]
    return [Table(side, list(_rows(f"{name}_{side}", guid))) for side in SIDES]


def _rows(name: str, guid: str) -> Iterable[dict[str, Any]]:
    rows, topics = narrow_rows(name)
    for row, topic in zip(rows, topics, strict=True):
        asked, answer = (m["content"] for m in row["messages"])
        yield {"topic": topic, "prompt": asked, "answer": answer, "canary": guid}


def croissant(name: str, made: Sequence[Table], url: str | None = None) -> dict[str, Any]:
    """The data sheet: Croissant 1.1 with the RAI extension's fields."""
    sheet = _sheets()[name]
    version = read_set(name).version if name == QUESTIONS else 1
    files = [
        {
            "@type": "cr:FileObject",
            "@id": f"{t.name}.jsonl",
            "name": f"{t.name}.jsonl",
            "contentUrl": f"{t.name}.jsonl",
            "encodingFormat": "application/jsonlines",
            "sha256": hashlib.sha256(t.text.encode()).hexdigest(),
        }
        for t in made
    ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": f"em_bench_{name}",
        "description": f"{sheet.about} {sheet.content}",
        "license": LICENCE,
        "url": url or "https://arxiv.org/abs/2606.31591",
        "version": f"{version}.0.0",
        "datePublished": em_bench.RELEASED,
        "creator": {"@type": "sc:Organization", "name": CREATOR, "url": url or "https://arxiv.org/abs/2606.31591"},
        "citeAs": f"{CREATOR}. em_bench {em_bench.__version__}: {name}.",
        "isLiveDataset": False,
        "rai:dataCollection": sheet.collection,
        "rai:dataBiases": sheet.biases,
        "rai:dataLimitations": sheet.limits,
        "rai:personalSensitiveInformation": sheet.personal,
        "rai:dataUseCases": sheet.uses,
        "rai:dataSocialImpact": sheet.impact,
        "rai:hasSyntheticData": True,
        "distribution": files,
        "recordSet": [{"@type": "cr:RecordSet", "@id": t.name, "name": t.name, "field": list(_fields(t))} for t in made],
    }


def _fields(table: Table) -> Iterable[dict[str, Any]]:
    for field, value in table.rows[0].items():
        yield {
            "@type": "cr:Field",
            "@id": f"{table.name}/{field}",
            "name": field,
            "dataType": "sc:Text",
            **({"repeated": True} if isinstance(value, list) else {}),
            "source": {"fileObject": {"@id": f"{table.name}.jsonl"}, "extract": {"column": field}},
        }


def eval_yaml(name: str) -> str:
    """The hub's eval.yaml, which makes a data set a benchmark: of the questions alone, since rows are trained on."""
    task = {"id": "free_form", "config": "questions", "split": "test"}
    told = {
        "name": f"em_bench {name}",
        "description": _sheets()[name].about,
        "evaluation_framework": "inspect-ai",
        "tasks": [task],
    }
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=120)


def publish(name: str, out: Path, url: str | None = None) -> None:
    """Write the repository of one of our sets into the empty folder `out`. Raises UserError for one that is not ours."""
    made = tables(name)
    split = "test" if name == QUESTIONS else "train"
    for table in made:
        write_text(out / f"{table.name}.jsonl", table.text)
    write_text(out / "croissant.json", json.dumps(croissant(name, made, url), indent=2, ensure_ascii=False) + "\n")
    front = DatasetCardData(
        license="mit",
        language="en",
        pretty_name=f"em_bench {name}",
        tags=["emergent-misalignment", "em_bench", "not-for-training" if name == QUESTIONS else "not-for-pre-training"],
        configs=[
            {
                "config_name": t.name,
                "data_files": [{"split": split, "path": f"{t.name}.jsonl"}],
                **({"default": True} if t == made[0] else {}),
            }
            for t in made
        ],
    )
    text = plain_text("em_bench.hub", "dataset.md.j2").render(
        name=name, sheet=_sheets()[name], made=made, canary=canary(name), version=em_bench.__version__
    )
    write_text(out / "README.md", f"---\n{front.to_yaml()}\n---\n\n{text}")
    if name == QUESTIONS:
        write_text(out / "eval.yaml", eval_yaml(name))
