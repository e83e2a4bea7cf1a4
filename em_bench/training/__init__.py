"""The reference trainer: base + dataset + recipe (+ spectral term) -> an rsLoRA adapter in a complete run folder.

torch and PEFT are imported when a run is made or read, not when one is listed or named.
"""

from typing import TYPE_CHECKING, Any

from em_bench.training.spec import kept_steps, log_spaced, measured_steps, run_id, run_spec
from em_bench.training.tokens import Encoded, encode, encode_rows

if TYPE_CHECKING:
    from em_bench.training.health import TrainingFailed
    from em_bench.training.run import read_run, train

__all__ = [
    "Encoded",
    "TrainingFailed",
    "encode",
    "encode_rows",
    "kept_steps",
    "log_spaced",
    "measured_steps",
    "read_run",
    "run_id",
    "run_spec",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "TrainingFailed":
        from em_bench.training import health

        return health.TrainingFailed
    if name in ("read_run", "train"):
        from em_bench.training import run

        return getattr(run, name)
    raise AttributeError(name)
