"""What the terminal shows while a plan runs: a live block on a terminal, a line an event elsewhere. All on stderr."""

import time
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from em_bench.sweep.engine.snakemake_run import tail
from em_bench.sweep.engine.status import Status, status
from em_bench.sweep.engine.sweep_progress import SweepProgress
from em_bench.sweep.jobs import Job, Plan, job_folder

AGAIN = "em-bench reproduce ..."  # stands in a list of failures for the command that made it


def clock(seconds: float) -> str:
    """h:mm:ss."""
    s = int(seconds)
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}"


def _headline(progress: SweepProgress) -> str:
    left = clock(progress.seconds_left()) if progress.count("running") or progress.count("waiting") else "0:00:00"
    counts = f"{progress.count('done')}/{len(progress.jobs)} jobs done, {progress.count('running')} running, {progress.count('failed')} failed"
    return f"{progress.name}: {counts}, {clock(time.monotonic() - progress.began)} gone, about {left} left"


def _block(progress: SweepProgress, height: int) -> Group:
    """Headline, bar and a row for each job that is running or has failed, on at most `height` lines."""
    table = Table.grid(padding=(0, 2))
    for _ in range(4):
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    rows = _rows(progress, "running") + _rows(progress, "failed")
    fit = max(height - 4, 1)
    for row in rows[:fit]:
        table.add_row(*row)
    more = [Text(f"and {len(rows) - fit} more: em-bench status --workdir {progress.work}")] if len(rows) > fit else []
    # Rich's bar ends no line.
    return Group(
        Text(_headline(progress)), ProgressBar(total=1.0, completed=progress.share_done(), width=60), Text(""), table, *more
    )


def _rows(progress: SweepProgress, wanted: Status) -> list[tuple]:
    rows: list[tuple] = []
    for job in progress.jobs:
        standing, state = progress.at[job.id]
        if state is None:
            continue
        if standing == wanted == "running":
            loss = f"loss {state.loss:.3f}" if state.loss is not None else ""
            cells = f"{state.cells_done}/{state.cells}" if state.cells else ""
            rows.append((Text(job.id, style="cyan"), clock(progress.elapsed(job)), cells, loss, Text(state.doing or "")))
        elif standing == wanted == "failed":
            rows.append((Text(job.id, style="red"), "failed", "", "", Text(state.error or "killed")))
    return rows


@contextmanager
def shown(progress: SweepProgress, console: Console | None = None):
    """Show the progress until the block ends; gives the function to call at every poll."""
    console = console or Console(markup=False, emoji=False, stderr=True)
    if console.is_terminal:
        with Live(_block(progress, console.height), console=console, auto_refresh=False) as live:

            def drawn() -> None:
                progress.refresh()
                live.update(_block(progress, console.height), refresh=True)

            yield drawn
        return
    said: dict[str, str] = {}

    def poll() -> None:
        progress.refresh()
        for job in progress.jobs:
            now, _state = progress.at[job.id]
            if now != said.get(job.id, "waiting"):
                console.print(f"{now} {job.id}   ({_headline(progress)})", soft_wrap=True, highlight=False, markup=False)
            said[job.id] = now

    said.update({job_id: now for job_id, (now, _) in progress.at.items()})
    yield poll


def failures(plan: Plan, work: Path, left: list[Job]) -> str:
    """Which jobs failed with their last words, and which were not run because of them."""
    failed = [j for j in left if status(work, j)[0] == "failed"]
    out = []
    for job in failed:
        log = job_folder(work, job) / "log.txt"
        last = f": {state.error}" if (state := status(work, job)[1]) and state.error else ""
        out += [f"failed: {job.id}{last} ({log})", *(f"    {line}" for line in tail(log).splitlines())]
        out.append(f"    again: {AGAIN} --only {job.id}")
    waiting = [j.id for j in left if j not in failed]
    if waiting:
        out.append(f"not run: {', '.join(waiting)}")
    return "\n".join(out)
