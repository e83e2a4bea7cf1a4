"""How a run was computed, session by session: one that was killed may go on later and with other options, and its record says so."""

import time
from pathlib import Path

from em_bench.files import write_text
from em_bench.records import Record
from em_bench.run_folder import LOG

FILE = "sessions.jsonl"  # while the run is in the making


class Session(Record):
    """From one start of the command to its end, or to the last line that it wrote before it was killed."""

    options: dict[str, str]
    resumed: bool
    began: float
    wall_s: float | None = None


def begin(folder: Path, options: dict[str, str], began: float, resumed: bool) -> None:
    """Note a session that began at `began` (seconds since 1970), before it writes to the log; closes the one before."""
    known = _read(folder)
    if known:
        last = max((folder / f).stat().st_mtime for f in (FILE, LOG) if (folder / f).exists())
        known[-1] = known[-1].model_copy(update={"wall_s": max(last - known[-1].began, 0.0)})
    lines = [s.model_dump_json() + "\n" for s in (*known, Session(options=options, resumed=resumed, began=began))]
    write_text(folder / FILE, "".join(lines))


def started(folder: Path) -> float:
    """When the first session began, in seconds since 1970."""
    return _read(folder)[0].began


def wall_s(folder: Path) -> float:
    """Seconds of all sessions, the last one until now; steps that a kill lost count too."""
    *earlier, last = _read(folder)
    known = [s.wall_s for s in earlier if s.wall_s is not None]
    assert len(known) == len(earlier)  # `begin` closes the one before
    return sum(known) + max(time.time() - last.began, 0.0)


def options(folder: Path) -> dict[str, str]:
    """Option -> its value, or `8, then 3` where sessions differ; an option that never left its default is not named.

    Sessions that left no state to go on from have no part in the result.
    """
    known = _read(folder)
    first = max(i for i, s in enumerate(known) if i == 0 or not s.resumed)
    used = [s.options for s in known[first:]]
    out = {}
    for name in sorted({n for u in used for n in u}):
        values = [u.get(name, "default") for u in used]
        out[name] = ", then ".join(v for i, v in enumerate(values) if i == 0 or v != values[i - 1])
    return out


def _read(folder: Path) -> list[Session]:
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Session.model_validate_json(line) for line in lines]
