"""Resuming: one atomic file {adapter, optimiser, step, RNG}, and nothing of the base."""

from pathlib import Path

import torch

from em_bench.errors import UserError
from em_bench.files import atomic_file

FILE = "state.pt"


def save_state(folder: Path, *, step: int, params: dict, optimizer, tokens: dict[str, float]) -> None:
    """Write the state after `step` finished steps."""
    state = {
        "step": step,
        "params": {n: p.detach().cpu() for n, p in params.items()},
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "tokens": tokens,
    }
    with atomic_file(folder / FILE, "wb") as f:
        torch.save(state, f)


def load_state(folder: Path, *, params: dict, optimizer) -> tuple[int, dict[str, float]]:
    """Restore adapter, optimiser and RNG in place; returns (finished steps, token counters), (0, {}) without a state.

    Raises UserError where the file is damaged or of another run.
    """
    path = folder / FILE
    if not path.exists():
        return 0, {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, p in params.items():
                p.copy_(state["params"][name])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and torch.cuda.is_available():  # may have been saved on another machine
            torch.cuda.set_rng_state(state["cuda_rng"])
        return state["step"], state["tokens"]
    except OSError:
        raise
    except Exception as e:  # torch.load meets damage with errors of many kinds
        raise UserError(f"{path}: cannot be resumed from ({type(e).__name__}); remove {folder} to start the run again") from None
