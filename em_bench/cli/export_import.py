"""`em-bench export` and `em-bench import`: runs and evaluations from one machine to another."""

from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `export` and `import`."""
    app.command()(export)
    app.command("import")(import_)


def export(
    runs: Annotated[list[Path], typer.Argument(help="Work folders, run folders or evaluation folders.")],
    to: Annotated[Path, typer.Option("--to", help="The archive to write; of the format eee the folder that data/ goes into.")],
    format: Annotated[
        str, typer.Option(help="archive: for em-bench import. eee: files of Every Eval Ever, of judged evaluations.")
    ] = "archive",
    for_others: Annotated[
        bool, typer.Option("--for-others", help="Questions that may not be republished, and answers to them, go as hashes.")
    ] = False,
    model_id: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="eee: the model, as others find it.")] = None,
    organisation: Annotated[str | None, typer.Option(help="eee: who provides the numbers.")] = None,
    relationship: Annotated[
        str, typer.Option(help="eee: of the evaluator to the model: first_party, third_party, collaborative or other.")
    ] = "first_party",
) -> None:
    """Pack finished runs and evaluations into one file, without the bases; or write their numbers in a format of others.

    Between machines of your own as it is; before anybody else gets it with --for-others. The format eee holds numbers only, no
    question and no answer. Examples:

        em-bench export em_bench_work/main --to site-a.zip
        em-bench export EVALUATION --format eee --to eee --model-id me/my-adapter --organisation "My lab"
    """
    from em_bench.did_you_mean import unknown

    if format == "eee":
        return _export_eee(runs, to, model_id, organisation, relationship)
    if format != "archive":
        raise unknown("format", format, ("archive", "eee"))
    from em_bench.sweep.export_import import export as pack

    with _told("packing") as tell:
        n = pack(runs, to, tell, for_others=for_others)
    print(f"{to}: {n} runs and evaluations, {to.stat().st_size / 1e6:,.1f} MB")


def _export_eee(evaluations: list[Path], to: Path, model_id: str | None, organisation: str | None, relationship: str) -> None:
    import json

    from em_bench.did_you_mean import unknown
    from em_bench.errors import UserError
    from em_bench.files import write_text
    from em_bench.hub.every_eval_ever import RELATIONSHIPS, Publisher, export_eee

    if not model_id or not organisation:
        raise UserError("--format eee: say of which model and who you are: --model-id OWNER/NAME --organisation NAME")
    if relationship not in RELATIONSHIPS:
        raise unknown("relationship", relationship, RELATIONSHIPS)
    publisher = Publisher(organisation, model_id, relationship)
    for path, record in [export_eee(at, publisher, to) for at in evaluations]:
        write_text(path, json.dumps(record, indent=2) + "\n")
        print(path)


def import_(
    file: Annotated[Path, typer.Argument(help="An archive of em-bench export.")],
    work: Annotated[Path, typer.Option("--workdir", "-w", help="Work folder to take it into.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of each as JSON.")] = False,
) -> None:
    """Verify an archive, every hash and every number of it, and take its runs and evaluations into a work folder.

    What is there already stays as it is; `em-bench reproduce` in that folder does not run it again. Exit code 1 if something
    of the same name differs: it is left out.

        em-bench import site-a.zip --workdir em_bench_work/main
    """
    import json
    import sys
    from collections import Counter

    from em_bench.sweep.export_import import import_archive

    with _told("importing") as tell:
        done = import_archive(file, work, tell)
    differing = [d.name for d in done if d.outcome == "differs"]
    if as_json:
        print(json.dumps([d._asdict() for d in done], indent=1))
    else:
        counts = Counter(d.outcome for d in done)
        print(f"{work}: " + ", ".join(f"{counts[o]} {o}" for o in ("new", "there already", "differs")))
    for name in differing:
        print(f"left out: {name} is there with other content", file=sys.stderr)
    if differing:
        raise typer.Exit(1)


@contextmanager
def _told(what: str):
    """A line on stderr that says what is being worked on."""
    from rich.console import Console
    from rich.text import Text

    console = Console(markup=False, emoji=False, stderr=True)
    if not console.is_terminal:
        yield lambda name: None
        return
    with console.status(what) as line:
        yield lambda name: line.update(Text(f"{what} {name}"))
