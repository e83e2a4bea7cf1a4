"""Our own sets as repositories: a data sheet that the reference validator reads, every row whole and with its canary, no text changed."""

import json

import pytest
import yaml
from helpers import validators
from huggingface_hub import DatasetCard
from typer.testing import CliRunner

from em_bench.cli import build
from em_bench.data.narrow_sets import narrow_rows
from em_bench.data.questions import load
from em_bench.hub.dataset import canary, publish, publishable_sets, tables

READ = """
import json, sys
import mlcroissant
found = mlcroissant.Dataset(sys.argv[1])
issues = found.metadata.ctx.issues
assert not issues.errors, issues.errors
as_text = lambda v: [as_text(x) for x in v] if isinstance(v, (list, tuple)) or hasattr(v, "tolist") else v.decode() if isinstance(v, bytes) else v
records = {r.id: [{k.partition("/")[2]: as_text(v) for k, v in row.items()} for row in found.records(r.id)] for r in found.metadata.record_sets}
rai = {k: getattr(found.metadata, k) for k in ("data_biases", "data_limitations", "personal_sensitive_information", "data_use_cases", "data_social_impact")}
print(json.dumps({"warnings": sorted(issues.warnings), "records": records, "rai": {k: bool(v) for k, v in rai.items()}}))
"""


def test_ours_alone_are_published():
    assert set(publishable_sets()) == {"em_core", "home_safety", "money", "outdoor_sports", "python_code"}
    ended = CliRunner().invoke(build(), ["data", "publish", "turner", "--to", "nowhere"])
    assert "no such set of ours" in str(ended.exception)


@pytest.mark.parametrize("name", ["em_core", "money"])
def test_the_data_sheet_is_one(name, tmp_path):
    validators.need("mlcroissant")
    ended = CliRunner().invoke(build(), ["data", "publish", name, "--to", str(tmp_path / name)])
    assert ended.exit_code == 0, ended.output
    ended = validators.run("-c", READ, str(tmp_path / name / "croissant.json"), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
    read = json.loads(ended.stdout)
    assert read["warnings"] == [] and all(read["rai"].values())
    assert read["records"] == {t.name: list(t.rows) for t in tables(name)}


def test_canaries_stand_beside_the_texts_and_in_none_of_them():
    seen = set()
    for name in publishable_sets():
        guid = canary(name)
        seen.add(guid)
        for table in tables(name):
            assert table.rows and all(row["canary"] == guid for row in table.rows)
            assert not [row for row in table.rows if any(guid in str(v) for k, v in row.items() if k != "canary")]
    assert len(seen) == len(publishable_sets())
    asked = {(r["id"], r["text"]) for r in tables("em_core")[0].rows}
    assert asked == {(q.id, q.text) for q in load("em_core", "all")}
    rows = [(r["prompt"], r["answer"]) for r in tables("money")[0].rows]
    assert rows == [tuple(m["content"] for m in r["messages"]) for r in narrow_rows("money_bad")[0]]


def test_the_hubs_files_are_what_it_reads(tmp_path):
    for name in ("em_core", "python_code"):
        (tmp_path / name).mkdir()
        publish(name, tmp_path / name)
        card = DatasetCard.load(tmp_path / name / "README.md")
        listed = [f["path"] for c in card.data.to_dict()["configs"] for f in c["data_files"]]
        assert listed == [f"{t.name}.jsonl" for t in tables(name)] and all((tmp_path / name / p).is_file() for p in listed)
        assert card.data.license == "mit" and canary(name) in card.text
    told = yaml.safe_load((tmp_path / "em_core" / "eval.yaml").read_text())
    assert told["evaluation_framework"] == "inspect-ai" and told["tasks"] == [
        {"id": "free_form", "config": "questions", "split": "test"}
    ]
    assert not (tmp_path / "python_code" / "eval.yaml").exists()
