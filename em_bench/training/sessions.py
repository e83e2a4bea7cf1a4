"""How a run was computed, sitting by sitting: a run that was killed may go on with other options, and its record says so."""

import json
from pathlib import Path

FILE = "options.jsonl"  # while the run is in the making


def begin(folder: Path, used: dict[str, str], resumed: bool) -> None:
    """Note a sitting's options; those of sittings that left no state behind are forgotten."""
    with open(folder / FILE, "a" if resumed else "w", encoding="utf-8") as f:
        f.write(json.dumps(used) + "\n")


def summary(folder: Path) -> dict[str, str]:
    """Option -> its value, or `8, then 3` where sittings differ; an option that never left its default is not named."""
    sittings = [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]
    out = {}
    for name in sorted({n for s in sittings for n in s}):
        values = [s.get(name, "default") for s in sittings]
        out[name] = ", then ".join(v for i, v in enumerate(values) if i == 0 or v != values[i - 1])
    return out
