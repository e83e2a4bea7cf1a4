"""`em-bench push` and `em-bench pull`: adapters to the hub and back, with what is known of them and without their rows."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `push` and `pull`."""
    app.command()(push)
    app.command()(pull)


def push(
    target: Annotated[Path, typer.Argument(help="A run folder, or an entry's folder under leaderboard/submissions.")],
    repository: Annotated[str | None, typer.Argument(help="OWNER/NAME on the hub. Left out: only --to.")] = None,
    to: Annotated[Path | None, typer.Option(help="Write the repository into this new folder, to be looked at.")] = None,
    evaluations: Annotated[
        Path | None,
        typer.Option(help="Where the run's evaluations are. Default: evaluations/ beside its runs/.", show_default=False),
    ] = None,
    questions_at: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="The hub's data set of em_core: .eval_results name it.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Default: a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch.")] = None,
) -> None:
    """Make an adapter repository with a model card, and upload it: recipe, terms of the rows, numbers at matched narrow loss, spectrum.

    No row of the training data, no question and no answer is in it. The token is the hub's own (hf auth login, or HF_TOKEN);
    HF_ENDPOINT names another hub. Examples:

        em-bench push em_bench_work/tiny/runs/RUN --to look-at-it
        em-bench push em_bench_work/tiny/runs/RUN me/my-adapter
    """
    from tempfile import TemporaryDirectory

    from em_bench.errors import UserError
    from em_bench.files import atomic_folder
    from em_bench.hub.repository import contents, stage
    from em_bench.hub.repository import push as upload

    if repository is None and to is None:
        raise UserError("where to? name OWNER/NAME on the hub, or a folder with --to")
    if to and to.exists():
        raise UserError(f"--to {to}: is there already; name a new folder")
    name = (repository or "").partition("/")[2]
    with TemporaryDirectory(prefix="em-bench-push-") as scratch:
        folder = Path(scratch)
        stage(target, folder, name=name, evaluations=evaluations, questions_at=questions_at)
        if repository:
            print(upload(folder, repository, private=not public, revision=revision))
        if to:
            with atomic_folder(to) as made:
                for path in contents(folder):
                    (made / path).parent.mkdir(parents=True, exist_ok=True)
                    (made / path).write_bytes((folder / path).read_bytes())
            print(to)


def pull(
    repository: Annotated[str, typer.Argument(help="OWNER/NAME, or OWNER/NAME@REVISION, made by em-bench push.")],
    to: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
) -> None:
    """Fetch the runs of an adapter repository and check each: its recipe, its log and its bytes belong together.

    em-bench pull me/my-adapter --to runs
    """
    import sys

    from em_bench.hub.repository import pull as fetch

    name, _, revision = repository.partition("@")
    for run in fetch(name, to, revision or None, lambda text: print(text, file=sys.stderr)):
        print(run)
