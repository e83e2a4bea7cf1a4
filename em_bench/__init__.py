"""em_bench: how much emergent misalignment does an optimiser buy at the same training loss?

    import em_bench

    em_bench.evaluate("my-lora")          # misaligned answers of all asked, beside its base
    em_bench.margin("my-lora")            # no judge and no sampling
    em_bench.train("organism-qwen3", "medical", "muon")
    em_bench.spectrum("my-lora")          # singular values
    em_bench.spectral_penalty(model)      # the paper's term, to add to a loss
    em_bench.SpectralCallback(0.1)        # the same in one line of anybody's Trainer
    em_bench.Muon(params)

What is asked for is imported then (`em_bench.api`), so that commands that only look stay light.
"""

from typing import Any

__version__ = "0.2.0"
RELEASED = "2026-11-26"  # of this version, as CHANGELOG.md has it
__all__ = ["Muon", "SpectralCallback", "evaluate", "margin", "spectral_penalty", "spectrum", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'em_bench' has no attribute {name!r}")
    from importlib import import_module  # by its name: the layers below import this package

    return getattr(import_module("em_bench.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
