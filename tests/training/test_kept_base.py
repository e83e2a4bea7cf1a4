"""A process loads its base once for all that it trains and evaluates, and every result is that of a base of its own."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from em_bench.harness.load_model import adapted, load_model
from em_bench.training import TrainingFailed, read_run, train
from em_bench.training.base import KeptBase
from em_bench.training.execution_options import Options


@pytest.fixture
def loads(monkeypatch) -> list:
    """A line a load of a model's weights."""
    made, seen = AutoModelForCausalLM.from_pretrained, []

    def counted(folder, **how):
        seen.append(str(folder))
        return made(folder, **how)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", counted)
    return seen


@pytest.mark.parametrize("checkpointing", [False, True])
def test_many_cells_one_load_and_the_results_of_fresh_bases(base, spec_for, tmp_path, loads, checkpointing):
    """Trained, failed, evaluated, trained; the files that come out are those of processes of their own, byte for byte."""
    specs = [spec_for(seed=0, steps=2), spec_for("muon", steps=2)]
    options = Options(gradient_checkpointing=checkpointing)
    alone = [read_run(train(s, base, tmp_path / "alone", options=options)) for s in specs]
    assert len(loads) == 2
    fresh = load_model(base)
    weights = {n: p.clone() for n, p in fresh.model.state_dict().items()}
    loads.clear()

    kept = KeptBase()
    first = train(specs[0], base, tmp_path / "kept", options=options, kept=kept)
    with pytest.raises(TrainingFailed):
        train(spec_for("sgd", lr=1e30, steps=2), base, tmp_path / "kept", options=options, kept=kept)
    ready = load_model(base, kept=kept)
    with adapted(ready, first / "adapter") as one, adapted(fresh, first / "adapter") as other:
        ids = torch.arange(5, 25)[None]
        assert torch.equal(one.model(input_ids=ids).logits, other.model(input_ids=ids).logits)
    folders = [first, train(specs[1], base, tmp_path / "kept", options=options, kept=kept)]

    assert len(loads) == kept.loads == 1
    for was, folder in zip(alone, folders, strict=True):
        now = read_run(folder)
        assert (now.adapter_sha256, now.checkpoints, now.narrow_loss) == (was.adapter_sha256, was.checkpoints, was.narrow_loss)
    left = load_model(base, kept=kept).model
    assert not left.training and type(left) is type(fresh.model)
    assert {n: type(m) for n, m in left.named_modules()} == {n: type(m) for n, m in fresh.model.named_modules()}
    assert all(torch.equal(p, weights[n]) for n, p in left.state_dict().items()) and not hasattr(left, "peft_config")
    assert not any(p.requires_grad for p in left.parameters()) and not left.get_input_embeddings()._forward_hooks


def test_another_base_takes_the_place_of_the_first(base, loads):
    kept = KeptBase()
    first = kept.whole(base)
    assert kept.whole(base, device="cpu") is first and len(loads) == 1
    assert kept.whole(base, "float64") is not first and len(loads) == kept.loads == 2
    held = copy.copy(kept.__dict__)
    with pytest.raises(Exception, match="no/such"):
        kept.get(("no", "such"), lambda: (_ for _ in ()).throw(OSError("no/such")))
    assert kept._model is None and held["loads"] == 2, "a load that failed leaves nothing half in its place"
