"""A pass that does not fit, and a process that is told to end: the same result after both."""

import signal

import pytest
import torch
from safetensors.torch import load_file

from em_bench.errors import UserError
from em_bench.files import sha256_file
from em_bench.run_folder import RunFolder
from em_bench.training import loop as loop_module
from em_bench.training import loss as loss_module
from em_bench.training import train


class SmallMemory:
    """Runs out where a pass has over `most` tokens with padding; on the way back, when gradients were written already, if told."""

    def __init__(self, monkeypatch, most: int, late: bool = False):
        self.most, self.seen, self.late, self.real = most, [], late, loss_module.answer_nll
        for module in (loop_module, loss_module):
            monkeypatch.setattr(module, "answer_nll", self)

    def __call__(self, model, batch):
        self.seen.append(batch["input_ids"].numel())
        if self.seen[-1] <= self.most:
            return self.real(model, batch)
        if self.late and torch.is_grad_enabled():
            nll = self.real(model, batch)
            nll.register_hook(self._full)
            return torch.stack([nll, self.real(model, batch)]).sum()
        raise torch.OutOfMemoryError("CUDA out of memory")

    def _full(self, _):
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("late", [False, True])
def test_a_pass_that_does_not_fit_is_halved_with_the_same_result(late, spec_for, base, tmp_path, monkeypatch):
    spec, said = spec_for(dtype="float64", steps=4), []
    whole = train(spec, base, tmp_path / "whole")
    memory = SmallMemory(monkeypatch, 60, late)
    halved = train(spec, base, tmp_path / "halved", say=said.append)
    assert max(memory.seen) > 60 and max(memory.seen[-3:]) <= 60, "no pass is tried again that was too large"
    one, other = (load_file(f / "adapter" / "adapter_model.safetensors") for f in (whole, halved))
    assert all(torch.allclose(one[k], other[k], rtol=1e-9, atol=1e-12) for k in one)
    losses = [[s.held_out_loss for s in RunFolder(f).log() if s.held_out_loss is not None] for f in (whole, halved)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert any("ran out of memory; from here on" in line and "the result stays the same" in line for line in said)


def test_a_row_that_does_not_fit_says_what_to_try(spec_for, base, tmp_path, monkeypatch):
    SmallMemory(monkeypatch, 2)
    with pytest.raises(
        UserError, match=r"out of memory: a pass of one row of \d+ tokens; try a shorter --max-length, .*or --gradient"
    ):
        train(spec_for(), base, tmp_path)


def test_told_to_end_a_run_saves_its_state_and_goes_on(spec_for, base, tmp_path):
    """As SLURM does before its time is up; the state is written although none was due, and nothing is lost or different."""
    spec = spec_for(steps=6)
    whole = train(spec, base, tmp_path / "whole")

    def asked(record):
        if record.step == 3:
            signal.raise_signal(signal.SIGUSR1)

    with pytest.raises(SystemExit) as ended:
        train(spec, base, tmp_path / "told", progress=asked)
    assert ended.value.code == 143 and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    seen = []
    again = train(spec, base, tmp_path / "told", progress=lambda r: seen.append(r.step))
    assert seen[0] in (4, 5) and seen[-1] == 6
    assert sha256_file(again / "adapter" / "adapter_model.safetensors") == sha256_file(
        whole / "adapter" / "adapter_model.safetensors"
    )
