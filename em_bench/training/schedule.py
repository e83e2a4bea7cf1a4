"""The learning-rate schedule: linear warm-up, then linear decay (Betley/Turner recipe)."""

WARMUP_STEPS = 5  # of Betley et al. and Turner et al.


def warmup(steps: int) -> int:
    """Warm-up steps of a run of `steps`: five, or none where they were more than a tenth of it.

    transformers' warm-up begins at rate 0, so that a run of few steps would waste a good part of them, the first one whole.
    """
    return WARMUP_STEPS if steps / 10 >= WARMUP_STEPS else 0


def factor(step: int, steps: int, warmup_steps: int) -> float:
    """Multiplier of the learning rate at optimiser step `step` (0-based), as transformers' linear schedule has it."""
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    return max(0.0, (steps - step) / max(1, steps - warmup_steps))
