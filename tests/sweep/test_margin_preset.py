"""A preset that measures the margin, end to end on the organism: no sampling, no judge; its table, page and sentence from its numbers."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import em_bench.harness.margin
import em_bench.sweep.training
from em_bench.analysis.margin_rows import margin_rows, sentence
from em_bench.cli import build
from em_bench.errors import UserError
from em_bench.evaluation_folder import EvaluationFolder
from em_bench.files import read_record
from em_bench.records import Results
from em_bench.scoring import MarginPoint, shift_at_loss
from em_bench.sweep.engine.run_preset import reproduce
from em_bench.sweep.export_import import export, import_archive
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import load_preset
from em_bench.sweep.preset_changes import with_judge, with_model
from em_bench.verify.chain import verify

MINI = """
name: mini
summary: two optimisers, one dataset and another beside it
models: [organism-qwen3]
datasets: [medical, code]
recipes: [adamw, sgd]
learning_rates: {adamw: [3.0e-3], sgd: [1.0e-5]}
spectral_lambda: [0]
batch_sizes: [8]
seeds: [0]
steps: 5
lora: {rank: 4, alpha: 8}
evaluation: {questions: organism, measure: margin, per_domain: 2, targets: {organism-qwen3/medical: [1.45]}}
base: true
parts:
  bad: {datasets: [medical]}
  beside: {datasets: [code], recipes: [adamw]}
pack: 5
provenance: {models: C, datasets: C, recipes: C, learning_rates: C, spectral_lambda: C, batch_sizes: C, seeds: C, steps: C, lora: C, evaluation: C}
"""


def preset(folder: Path, **changes) -> Path:
    """mini.yaml, with other fields of its evaluation."""
    given = yaml.safe_load(MINI)
    given["evaluation"] |= changes
    (folder / "mini.yaml").write_text(yaml.safe_dump(given))
    return folder / "mini.yaml"


@pytest.fixture(scope="module")
def swept(base, tmp_path_factory) -> tuple[Results, Path]:
    folder = tmp_path_factory.mktemp("margin")
    ended = reproduce(make_plan(load_preset(str(preset(folder)))), folder / "work")
    assert not ended.failures and not ended.results.missing
    return ended.results, ended.page


def test_every_adapter_is_measured_at_its_end_and_on_both_sides_of_the_target(swept):
    results, _ = swept
    assert not results.cells and not results.checkpoints
    base, *adapters = [c for c in results.margins if c.step is None]
    assert base.recipe is None and len(adapters) == 3
    for c in adapters:
        earlier = {e.step: e for e in results.margins if e.run_id == c.run_id and e.step is not None}
        losses = {p.step: p.narrow_loss for p in c.trajectory}
        first = next((s for s, loss in losses.items() if s and loss <= 1.45), None) if c.dataset == "medical" else None
        sides = {first, [*losses][[*losses].index(first) - 1]} - {0, c.steps} if first else set()
        assert set(earlier) == sides
        assert all(earlier[s].narrow_loss == losses[s] for s in earlier)
        assert len(c.questions) == len(base.questions) == 2 * len({q.domain for q in c.questions})
    crossed = next(c for c in adapters if c.recipe == "adamw" and c.dataset == "medical")
    assert [e for e in results.margins if e.run_id == crossed.run_id and e.step]


def test_the_shifts_of_the_table_are_those_of_the_margins(swept):
    """Each question's margin less the base's, averaged here by hand, and the harness's own estimate beside it."""
    results, _ = swept
    of = {(c.dataset, c.recipe): c for c in results.margins if c.step is None}
    before = {q.question_id: q.margin for q in of[None, None].questions}
    for row in margin_rows(results):
        cell = of[row.dataset, row.recipe]
        if row.recipe is None:
            assert row.at_end is row.at_target is None and row.margin.value == pytest.approx(cell.overall.margin.value)
            continue
        by_hand = [q.margin - before[q.question_id] for q in cell.questions]
        assert row.at_end.value == pytest.approx(sum(by_hand) / len(by_hand))
        assert (row.at_end.low, row.at_end.high) == pytest.approx((cell.overall.shift.low, cell.overall.shift.high))
        assert row.target == (1.45 if row.dataset == "medical" else None)
    rows = {(r.dataset, r.recipe): r for r in margin_rows(results)}
    assert rows["medical", "sgd"].at_target == "did not learn" and rows["code", "adamw"].at_target is None
    assert rows["medical", "adamw"].at_target.value > 0


def test_a_shift_at_a_loss_lies_between_its_sides():
    """A loss of 3 lies a quarter of the way from 3.1 to 2.7: so do the margins, less the base's."""
    points = [
        MarginPoint(0, 4.0, {"a": -1.0, "b": 0.5}),
        MarginPoint(2, 3.5),
        MarginPoint(4, 3.1, {"a": 0.0, "b": 1.0}),
        MarginPoint(8, 2.7, {"a": 4.0, "b": -1.0}),
    ]
    assert shift_at_loss(points, 3.0) == pytest.approx({"a": 2.0, "b": 0.0})
    assert shift_at_loss(points, 2.0) == "did not learn"
    assert shift_at_loss(points[:3], 3.3) == pytest.approx({"a": 7 / 9, "b": 0.5 * 7 / 9})


def test_the_page_and_the_sentence_are_made_from_the_numbers(swept):
    results, page = swept
    text, said = page.read_text(encoding="utf-8"), sentence(margin_rows(results))
    assert said in text and "did not learn" in text
    shifts = {r.recipe: r.at_end.value for r in margin_rows(results) if r.dataset == "medical"}
    least, most = min(shifts, key=shifts.get), max(shifts, key=shifts.get)
    assert f"{shifts[least]:+.3f} ({least}) to {shifts[most]:+.3f} ({most})" in said


def test_a_row_stands_against_its_own_control(swept):
    """Good answers to the same questions, the same recipe: planted by renaming, the shift less the control's, question by question."""
    names = {"medical": "x_bad", "code": "x_good"}
    renamed = [c.model_copy(update={"dataset": names.get(c.dataset)}) for c in swept[0].margins]
    rows = {(r.dataset, r.recipe): r for r in margin_rows(swept[0].model_copy(update={"margins": renamed}))}
    bad, good = rows["x_bad", "adamw"], rows["x_good", "adamw"]
    assert bad.beyond_control.value == pytest.approx(bad.at_end.value - good.at_end.value)
    assert good.beyond_control is None is rows["x_bad", "sgd"].beyond_control
    assert "x_bad less its control, adamw" in sentence([*rows.values()])


def test_nothing_is_measured_twice(swept, monkeypatch):
    results, page = swept
    again = reproduce(make_plan(load_preset(str(page.parents[2] / "mini.yaml"))), page.parents[1])
    assert again.results == results


def test_what_was_measured_verifies_and_travels(swept, tmp_path, monkeypatch):
    """To another machine, on which the preset then has nothing left to do."""
    results, page = swept
    work, there, packed = page.parents[1], tmp_path / "there", tmp_path / "a.zip"
    found = list(verify(work))
    assert not [c for _, checks in found for c in checks if not c.passed]
    assert sum(any(c.id == "margin.score" for c in checks) for _, checks in found) == len(results.margins)
    assert sum(any(c.id == "margin.adapter" for c in checks) for _, checks in found) == len(results.margins) - 1
    assert export([work], packed) == len(results.margins) + 3
    assert {d.outcome for d in import_archive(packed, there)} == {"new"}
    for module in (em_bench.sweep.training, em_bench.harness.margin):
        for slow in {"train", "answer_logprobs"} & set(vars(module)):
            monkeypatch.setattr(module, slow, lambda *a, **k: pytest.fail("done before"))
    again = reproduce(make_plan(load_preset(str(page.parents[2] / "mini.yaml"))), there)
    assert [c.model_dump(exclude={"wall_s"}) for c in again.results.margins] == [
        c.model_dump(exclude={"wall_s"}) for c in results.margins
    ]


def _edit(file: Path, line: int, **changes) -> None:
    lines = file.read_text().splitlines()
    lines[line] = json.dumps(json.loads(lines[line]) | changes)
    file.write_text("\n".join(lines) + "\n")


LIES = {
    "margin.rows": lambda at: _edit(at.margin_file("base"), 1, nats=0.5),
    "margin.questions": lambda at: _edit(at.margin_file(), 1, bytes=7),
    "margin.score": lambda at: _edit(at.margin_file(), 1, nats=-0.001),
    "margin.cell": lambda at: at.cell_file.write_text(at.cell_margin().model_copy(update={"neutral": 0.5}).model_dump_json()),
    "margin.adapter": lambda at: _edit(at.margin_file(), 0, adapter_sha256="0" * 64),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_margin_that_was_touched_is_seen(swept, tmp_path, lie):
    _, page = swept
    work, there = page.parents[1], tmp_path / "work"
    shutil.copytree(work, there, ignore=shutil.ignore_patterns(".*"))
    trained = next(e for e in EvaluationFolder.margins_below(there) if e.margins()["model"][0].run_id)
    LIES[lie](trained)
    failed = {c.id for folder, checks in verify(there) for c in checks if not c.passed and folder == trained.path}
    assert lie in failed
    export([there], tmp_path / "a.zip")
    with pytest.raises(UserError, match="margin|adapter"):
        import_archive(tmp_path / "a.zip", tmp_path / "nowhere")
    assert not list((tmp_path / "nowhere").glob("*/*"))


def test_the_plan_knows_the_given_answers(tmp_path):
    ended = CliRunner().invoke(build(), ["plan", "--preset", str(preset(tmp_path))])
    assert ended.exit_code == 0 and "none (the grammar grades)" not in ended.stdout and "judge calls" in ended.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capability": ["em_choice"]}, "capability: does not go with measure: margin"),
        ({"variants": ["plain"]}, "variants: does not go with measure: margin"),
        ({"measure": "answers"}, "generation: is missing"),
        ({"questions": "turner"}, "no aligned and misaligned answers"),
    ],
)
def test_bad_presets(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        make_plan(load_preset(str(preset(tmp_path, **changes))))


def test_a_judge_has_nothing_to_judge(tmp_path):
    with pytest.raises(UserError, match="measures the margin, which needs none"):
        with_judge(load_preset(str(preset(tmp_path))), "openai:m")


def test_a_users_folder_in_the_place_of_the_presets_base(base, tmp_path, monkeypatch):
    """By its name in all that is written; targets of narrow loss, which were the preset's base's, are left out."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, tmp_path / "my-model")
    ended = CliRunner().invoke(
        build(), ["reproduce", "--preset", str(preset(tmp_path)), "--model", "my-model", "--only", "evaluate-base-my-model"]
    )
    assert ended.exit_code == 0, ended.output
    results = read_record(tmp_path / "em_bench_work" / "mini" / "results.json", Results)
    assert [c.model for c in results.margins] == ["my-model"] and results.margins[0].overall.margin.value
    assert "did not learn" not in ended.output and str(tmp_path) not in results.model_dump_json()
    planned = make_plan(with_model(load_preset(str(tmp_path / "mini.yaml")), "my-model"))
    assert planned.models["my-model"].shape.layers > 0 and not planned.preset.evaluation.targets


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="does not tell the shape"):
        with_model(load_preset(str(preset(tmp_path))), str(tmp_path))


def test_pocket_is_planned_within_its_time():
    """Without its base being there; at most 25 minutes on two cores."""
    ended = CliRunner().invoke(build(), ["plan", "--preset", "pocket", "--cores", "2", "--json"])
    costs = json.loads(ended.stdout)["costs"]
    assert ended.exit_code == 0 and costs["runs"] == 11 and costs["judge_calls"] == 0
    assert 10 * 60 < costs["wall_s"] <= 25 * 60
