"""A preset with narrow losses as targets: answers on both sides of every first crossing, enough to read the rates there."""

import pytest
import yaml
from helpers.sweeps import MINI, preset_file, reproduce

from em_bench.errors import UserError
from em_bench.records import Results
from em_bench.scoring.matched_loss import Point, at_loss, by_cluster
from em_bench.sweep.preset import load_preset

FEW = {
    "recipes": ["adamw"], "learning_rates": {"adamw": [3e-3]}, "datasets": ["medical", "code"], "spectral_lambda": [0], "steps": 8
}  # fmt: skip
TARGETS = {"organism-qwen3/medical": [1.4, 1.1]}


def asked(targets) -> dict:
    return {"evaluation": MINI["evaluation"] | {"checkpoints": False, "targets": targets, "rescaled": True}}


@pytest.fixture(scope="module")
def results(base, tmp_path_factory) -> Results:
    folder = tmp_path_factory.mktemp("matched")
    reproduce(preset_file(folder, **FEW, **asked(TARGETS)), folder / "work")
    return Results.model_validate_json((folder / "work" / "results.json").read_bytes())


def test_both_sides_of_each_target_are_asked_and_the_rates_there_can_be_read(results):
    base, medical, code = results.cells
    assert results.targets == {name: tuple(losses) for name, losses in TARGETS.items()}
    path = [(p.step, p.narrow_loss) for p in medical.trajectory]
    assert [step for step, _ in path] == list(range(9))
    wanted = set()
    for target in TARGETS["organism-qwen3/medical"]:
        after = min(step for step, loss in path if loss <= target)
        wanted |= {after - 1, after}
    assert {c.step for c in results.checkpoints} == wanted - {0, 8} and {c.run_id for c in results.checkpoints} == {
        medical.run_id
    }
    counted = {c.step: by_cluster(c.questions) for c in results.checkpoints} | {
        0: by_cluster(base.questions),
        8: by_cluster(medical.questions),
    }
    for target in TARGETS["organism-qwen3/medical"]:
        found = at_loss([Point(step, loss, counted.get(step)) for step, loss in path], target)
        assert found.verdict in ("measured", "broken") and found.steps[1] == found.steps[0] + 1
    assert code.narrow_loss is not None


def test_the_finished_adapter_is_asked_again_at_the_larger_target(results):
    """Its loss is the target's; a smaller update by exactly the scale; the run is the cell's, the answers are its own."""
    medical = next(c for c in results.cells if c.dataset == "medical")
    [control] = results.controls
    assert control.run_id == medical.run_id and control.rescaled.target == 1.4 and control.rescaled.reached
    assert control.narrow_loss == pytest.approx(1.4, abs=1e-4) and 0 < control.rescaled.scale < 1
    assert control.spectral.norm == pytest.approx(control.rescaled.scale * medical.spectral.norm, rel=1e-5)
    assert control.responses_sha256 != medical.responses_sha256 and control.adapter_sha256 != medical.adapter_sha256
    assert sum(sum(q.counts.values()) for q in control.questions) == sum(sum(q.counts.values()) for q in medical.questions)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([1.6, 2.0], "the larger narrow loss first"),
        ([2.0, 1.8, 1.6, 1.5], "at most 3"),
        ({"organism-qwen3/medicine": [2.0]}, "organism-qwen3/medicine is no MODEL/DATASET of the preset"),
    ],
)
def test_bad_targets(tmp_path, targets, message):
    with pytest.raises(UserError, match=message):
        load_preset(str(preset_file(tmp_path, **FEW, **asked(targets))))


def test_one_pair_is_for_all_cells(tmp_path):
    asked_for = load_preset(str(preset_file(tmp_path, **FEW, **asked([2.0, 1.6])))).evaluation
    assert asked_for.targets_of("organism-qwen3", "code") == (2.0, 1.6) and asked_for.targets_of("organism-qwen3", None) == ()
    assert yaml.safe_load((tmp_path / "mini.yaml").read_text())["evaluation"]["targets"] == [2.0, 1.6]
