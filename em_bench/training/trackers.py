"""The log of a run in TensorBoard, W&B and whatever else accelerate knows, beside train.jsonl."""

from collections.abc import Sequence
from pathlib import Path

from em_bench.errors import UserError
from em_bench.records import RunSpec, StepRecord


class Trackers:
    """Called with every record; `finish` when the run ends. Only the first process has any."""

    def __init__(self, names: Sequence[str], folder: Path, run: str, spec: RunSpec):
        """Raises UserError for a tracker that accelerate does not know or that is not installed."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        available = {str(t) for t in get_available_trackers()}
        known = {str(name): cls for name, cls in LOGGER_TYPE_TO_CLASS.items()}
        self.trackers = []
        for name in names:
            if name not in known:
                raise UserError(f"--track {name}: no such tracker; name one of {', '.join(sorted(known))}")
            if name not in available:
                raise UserError(f"--track {name}: is not installed; pip install {name}, or leave --track away")
            cls = known[name]
            options = {"logging_dir": str(folder / "trackers")} if cls.requires_logging_directory else {}
            tracker = cls(run, **options)
            if hasattr(tracker, "start"):
                tracker.start()
            tracker.store_init_configuration(flat(spec.model_dump(mode="json")))
            self.trackers.append(tracker)

    def __call__(self, record: StepRecord) -> None:
        values = {k: v for k, v in flat(record.model_dump()).items() if v is not None and k != "step"}
        for tracker in self.trackers:
            tracker.log(values, step=record.step)

    def finish(self) -> None:
        """Flush and close."""
        for tracker in self.trackers:
            tracker.finish()


def flat(value: dict, prefix: str = "") -> dict[str, bool | int | float | str | None]:
    """Nested dictionaries as one with dotted names; lists as text."""
    out: dict[str, bool | int | float | str | None] = {}
    for k, v in value.items():
        if isinstance(v, dict):
            out |= flat(v, f"{prefix}{k}.")
        else:
            out[prefix + k] = v if isinstance(v, bool | int | float | str) or v is None else str(v)
    return out
