"""`em-bench leaderboard`: a maintainer's side: verify, build, challenge."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from em_bench.cli import judge_options as options

if TYPE_CHECKING:
    from em_bench.board.board import BoardRow

Top = Annotated[Path, typer.Option("--leaderboard", help="Folder with submissions/, ledger/ and benchmark/.")]
DEFAULT = Path("leaderboard")
Version = Annotated[str | None, typer.Option("--benchmark", help="Version of the rules. Default: the current one.")]
TierOption = Annotated[str, typer.Option("--tier", help="organism, small or full.")]


def register(app: typer.Typer) -> None:
    """Add `leaderboard` and its commands."""
    commands = typer.Typer(no_args_is_help=True, help="Verify entries by their data alone, build the page, record challenges.")
    for command in (verify, build, challenge):
        commands.command()(command)
    app.add_typer(commands, name="leaderboard")


def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Entries; default: all of them.", show_default=False)] = None,
    leaderboard: Top = DEFAULT,
    version: Version = None,
    tier: TierOption = "organism",
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Also take the entries, and train the cells that are drawn then again and compare.")
    ] = False,
    cells: Annotated[int, typer.Option(min=0, metavar="K", help="With --rerun: more cells than the rules ask for.")] = 0,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Draws the sample of --judge. Default: by chance, which no author can know."),
    ] = None,
    work: Annotated[Path, typer.Option("--workdir", "-w", help="Where re-trained cells go.")] = Path("em_bench_work", "rerun"),
    judge: Annotated[
        str | None, typer.Option("--judge", "-j", help="Also judge a sample again: openai:MODEL or grammar.")
    ] = None,
    base_url: options.BaseUrl = None,
    sample: Annotated[int, typer.Option(min=1, help="Responses that --judge judges, per entry.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check entries from their data: hashes, rules, verdicts, counts, rates, copies. No submitted code runs.

    Exit code 1 if a check fails. --rerun gives an entry its place in the order and a nonce, which with the hash of its results draws
    cells; it trains them again with the library class that the entry names, compares held-out losses, capability and rates, and notes
    the outcome in ledger/NAME.json: that is what "verified" means.

        em-bench leaderboard verify muon --rerun
    """
    from em_bench.board.benchmark import CURRENT
    from em_bench.board.board import LEDGER_CHECK, Folders, judge_entry, read_board

    folders = Folders.at(leaderboard)
    if names and len(names) == 1:
        rows = {n: judge_entry(folders, n) for n in names}
    else:  # each entry is held against all others: once for all of them
        with entries_bar("verify", folders) as on_entry:
            rows = {r.name: r for r in read_board(folders, version or CURRENT, _tier(tier), on_entry).rows}
        if names:
            rows = {n: rows[n] if n in rows else judge_entry(folders, n) for n in names}
    if judge:
        from em_bench.judging import JudgeOptions, make_judge

        rows = _rejudged(rows, folders, make_judge(judge, JudgeOptions(base_url=base_url)), sample, seed)
    fine = show_checks(rows, as_json, every=False)
    # Results that have changed since they were trained again are what --rerun is for.
    if rerun and all(c.passed or c.id == LEDGER_CHECK for r in rows.values() for c in r.checks):
        fine = True
        from em_bench.board.rerun import rerun_entry

        for name in rows:
            for line in rerun_entry(folders, name, cells, work):
                print(line)
                fine = fine and "OUTSIDE" not in line
    if not fine:
        raise typer.Exit(1)


def build(
    leaderboard: Top = DEFAULT,
    version: Version = None,
    tier: TierOption = "organism",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: LEADERBOARD/site.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the published board.json, numbers to 1e-9; write nothing.")
    ] = False,
) -> None:
    """Verify, score and rank every entry, write board.json, and the page with its exports. Static: open index.html.

    em-bench leaderboard build
    """
    import sys

    from em_bench.board.benchmark import CURRENT
    from em_bench.board.board import Folders, read_board
    from em_bench.board.compare_published import difference
    from em_bench.board.publish import publish

    folders = Folders.at(leaderboard)
    with entries_bar("build", folders) as on_entry:
        board = read_board(folders, version or CURRENT, _tier(tier), on_entry)
    published = leaderboard / "board.json"
    if check:
        if found := difference(board, published):
            print(f"{published}: {found}; run `em-bench leaderboard build` and commit it", file=sys.stderr)
            raise typer.Exit(1)
        print(f"{published}: {len(board.rows)} entries, the same (numbers to 1e-9)")
        return
    print(publish(board, folders, published, out or leaderboard / "site"))


def challenge(
    name: Annotated[str, typer.Argument(help="An entry.")],
    reason: Annotated[str | None, typer.Option(help="What is doubted, and on what ground.")] = None,
    by: Annotated[str | None, typer.Option(help="Who says so.")] = None,
    answer: Annotated[str | None, typer.Option(help="Answer every open challenge.")] = None,
    retract: Annotated[
        str | None, typer.Option(help="Retract the entry, with the reason; its row stays, struck through.")
    ] = None,
    leaderboard: Top = DEFAULT,
) -> None:
    """Challenge an entry: it shows on the page until it is answered. Also answers challenges and retracts entries.

    em-bench leaderboard challenge my-optimiser --reason "seeds 1 and 2 have one log"
    """
    from em_bench.board.board import Folders
    from em_bench.board.ledger import challenge as record

    folders = Folders.at(leaderboard)
    print(record(folders.ledger, folders.submissions, name, reason=reason, by=by, answer=answer, retract=retract))


def show_checks(rows: "dict[str, BoardRow]", as_json: bool, every: bool) -> bool:
    """Print checks (all, or those that failed) and a line an entry; returns whether all passed."""
    import json

    from rich.console import Console

    fine = all(c.passed for r in rows.values() for c in r.checks)
    if as_json:
        print(
            json.dumps(
                [{"entry": n, "status": r.status, "checks": [c.model_dump() for c in r.checks]} for n, r in rows.items()],
                indent=1,
            )
        )
        return fine
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    for name, row in rows.items():
        failed = [c for c in row.checks if not c.passed]
        for c in row.checks if every else failed:
            console.print(f"{'pass' if c.passed else 'FAIL'}  {c.id}: {c.sentence}" + (f" {c.detail}" if c.detail else ""))
        console.print(f"{name}: {len(row.checks)} checks, {len(failed)} failed, {row.status}" + _numbers(row))
    return fine


def _rejudged(rows: "dict[str, BoardRow]", folders, judge, sample: int, seed: int | None) -> "dict[str, BoardRow]":
    """The rows with the check of a sample judged again; what could not be read stays as it is."""
    from em_bench.board.entry import Entry
    from em_bench.board.rejudge import check_rejudged

    out = {}
    for name, row in rows.items():
        if row.score is not None:
            found = check_rejudged(Entry(folders.submissions / name), judge, sample, seed)
            row = row.model_copy(update={"checks": [*row.checks, found]} | ({} if found.passed else {"status": "failed"}))
        out[name] = row
    return out


def _numbers(row: "BoardRow") -> str:
    score = row.score
    if score is None:
        return ""
    if score.rate is None:
        return f"; did not learn: {score.reached} of {score.runs} runs reach both losses"
    m, d = score.rate, score.difference
    failed = [g.id for g in score.gates if not g.passed]
    text = f"; misaligned of all asked, mean over both losses {100 * m.value:.1f} % [{100 * m.low:.1f}, {100 * m.high:.1f}]"
    if failed:
        text += f" (fails the gate of {failed[0]}: cannot tell)"
    if d is None:
        return f"{text}; cannot be compared with AdamW, whose results are not here"
    itself = (d.value, d.low, d.high) == (0, 0, 0)
    return text + (
        "; the baseline" if itself else f", AdamW {100 * d.value:+z.1f} points [{100 * d.low:+z.1f}, {100 * d.high:+z.1f}]"
    )


def entries_bar(doing: str, folders):
    """A progress bar over the entries, on stderr; its context gives the callback."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress

    @contextmanager
    def shown():
        with Progress(console=Console(markup=False, emoji=False, stderr=True), transient=True) as bar:
            task = bar.add_task(doing, total=len(folders.names()))
            yield lambda name: bar.update(task, advance=1, description=f"{doing} {name}")

    return shown()


def _tier(name: str):
    from typing import get_args

    from em_bench.board.benchmark import TierName
    from em_bench.errors import UserError

    if name not in get_args(TierName):
        raise UserError(f"--tier {name}: no such tier; name one of {', '.join(get_args(TierName))}")
    return name
