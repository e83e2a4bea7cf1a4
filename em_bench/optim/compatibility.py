"""A trial of an optimiser on a small adapter: does it step on plain gradients, and does it resume exactly?

`python -m em_bench.optim.compatibility` tries every name of pytorch_optimizer and writes em_bench/optim/names.yaml.
"""

import io
import random
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

SHAPES = ((4, 24), (40, 4), (4, 24), (16, 4), (4, 16), (40, 4))  # A and B in turn, as adapters have them
STEPS = 24
MUON_GROUP = {"use_muon": True}  # the Muons of pytorch_optimizer ask each group whether it is theirs

Make = Callable[[Sequence[torch.nn.Parameter]], torch.optim.Optimizer]


def trial(make: Make) -> str | None:
    """Why `make(parameters)` gives no usable optimiser, None if it does. Leaves the global random state as it was.

    Usable: constructs, steps on gradients set from outside, moves the parameters to finite values, and a saved state
    read back without running pickled code continues bit for bit.
    """
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        before = _other_random()
        try:
            params = _parameters()
            optimizer = make(params)
        except Exception as e:
            return f"is not constructed from parameters and lr alone ({_first_line(e)})"
        try:
            _steps(optimizer, params, range(STEPS // 2))
        except Exception as e:
            return f"does not step on gradients alone ({_first_line(e)})"
        saved = io.BytesIO()
        torch.save([optimizer.state_dict(), [p.detach() for p in params], torch.get_rng_state()], saved)
        _steps(optimizer, params, range(STEPS // 2, STEPS))
        if _other_random() != before:
            return "draws random numbers outside torch, whose state is in no checkpoint"
        if not all(bool(p.isfinite().all()) for p in params):
            return "leaves no finite parameters"
        if all(torch.equal(p, q) for p, q in zip(params, _parameters(), strict=True)):
            return f"has not moved the parameters after {STEPS} steps"
        try:
            saved.seek(0)
            state, values, rng = torch.load(saved, weights_only=True)
            resumed = [torch.nn.Parameter(v) for v in values]
            optimizer = make(resumed)
            optimizer.load_state_dict(state)
            torch.set_rng_state(rng)
            _steps(optimizer, resumed, range(STEPS // 2, STEPS))
        except Exception as e:
            return f"its saved state cannot be read back as plain data ({type(e).__name__})"
        if not all(torch.equal(p, q) for p, q in zip(params, resumed, strict=True)):
            return "does not continue from its saved state bit for bit"
    return None


def _other_random() -> tuple:
    numpy_state = np.random.get_state(legacy=False)
    return random.getstate(), numpy_state["state"]["key"].tobytes(), numpy_state["state"]["pos"]


def _parameters() -> list[torch.nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(0.1 * torch.randn(s, generator=g)) for s in SHAPES]


def _steps(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: range) -> None:
    for i in steps:
        g = torch.Generator().manual_seed(i)
        for p in params:
            p.grad = torch.randn(p.shape, generator=g)
        optimizer.step()


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:100]}"


def _with_muon_group(cls: Callable[..., torch.optim.Optimizer], params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return cls([{"params": params, **MUON_GROUP}], lr=1e-3)


def survey() -> dict:
    """Every name of pytorch_optimizer: usable as it is, usable with `MUON_GROUP`, or refused and why."""
    from importlib.metadata import version

    import pytorch_optimizer

    found: dict = {"pytorch_optimizer": version("pytorch_optimizer"), "plain": [], "muon_group": [], "refused": {}}
    for name in sorted(pytorch_optimizer.get_supported_optimizers()):
        cls: Callable[..., torch.optim.Optimizer] = pytorch_optimizer.load_optimizer(name)
        reason = trial(partial(cls, lr=1e-3))
        if reason is None:
            found["plain"].append(name)
        elif trial(partial(_with_muon_group, cls)) is None:
            found["muon_group"].append(name)
        else:
            found["refused"][name] = reason
    return found


if __name__ == "__main__":
    import yaml

    from em_bench.files import write_text

    head = "# Written by `python -m em_bench.optim.compatibility`: what was found by running every optimiser of that version.\n"
    write_text(Path(__file__).with_name("names.yaml"), head + yaml.safe_dump(survey(), sort_keys=False, width=120))
