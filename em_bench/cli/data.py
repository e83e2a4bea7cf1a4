"""`em-bench data`: the training and question sets, where they come from, and whether they are what they should be."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Mirror = Annotated[
    str | None,
    typer.Option(help="Read URL/repository/commit/path instead of the public host. Also: EM_BENCH_MIRROR."),
]
Accept = Annotated[
    bool,
    typer.Option("--accept-terms", help="You have read and accept the terms of use that the command shows."),
]


def register(app: typer.Typer) -> None:
    """Add `data` with its commands."""
    data = typer.Typer(no_args_is_help=True, help="Training and question sets: list, fetch, verify, show.")
    data.command("list")(list_)
    data.command()(fetch)
    data.command()(verify)
    data.command()(show)
    data.command()(publish)
    app.add_typer(data, name="data")


def list_(as_json: Json = False) -> None:
    """List every training and question set with its rows, source, licence and state. Fetches nothing."""
    from em_bench.data.catalogue import catalogue

    entries = catalogue()
    if as_json:
        _print_json([e.model_dump() for e in entries])
        return
    _print_table(
        ("name", "kind", "rows", "licence", "state", "source"),
        [(e.name, e.kind, "" if e.rows is None else str(e.rows), e.licence, e.state, e.source) for e in entries],
    )


def publish(
    name: Annotated[str, typer.Argument(help="em_core, or an open narrow domain such as money.")],
    to: Annotated[Path, typer.Option(help="A new folder.")],
    url: Annotated[str | None, typer.Option(help="Where it will be found, for its data sheet.")] = None,
) -> None:
    """Write one of our own sets as a data set repository: rows with their canary, card, Croissant sheet, the hub's eval.yaml.

    em-bench data publish em_core --to em_core
    """
    from em_bench.errors import UserError
    from em_bench.files import atomic_folder
    from em_bench.hub.dataset import publish as write
    from em_bench.hub.dataset import source_of

    source_of(name)
    if to.exists():
        raise UserError(f"--to {to}: is there already; name a new folder")
    with atomic_folder(to) as made:
        write(name, made, url)
    print(to)


def fetch(
    names: Annotated[list[str], typer.Argument(help="Datasets, question sets or pinned files (em-bench data list).")],
    mirror: Mirror = None,
    accept_terms: Accept = False,
    as_json: Json = False,
) -> None:
    """Fetch pinned files into the cache, verified; print where they lie. What is there already is not fetched again.

    em-bench data fetch evil_spectra
    """
    from em_bench.data import upstream
    from em_bench.data.catalogue import pins_of, verification

    pins = dict.fromkeys(pin for name in names for pin in pins_of(name))
    for pin in pins:
        _show_terms(pin)
        upstream.fetch(pin, mirror, accept_terms=accept_terms)
    found = [verification(pin) for pin in pins]
    if as_json:
        _print_json([v.model_dump() for v in found])
        return
    for v in found:
        print(v.path)
    if not found:
        print("built in: nothing to fetch")


def verify(
    name: Annotated[str | None, typer.Argument(help="A dataset, question set or pinned file. Default: every pin.")] = None,
    as_json: Json = False,
) -> None:
    """Hash the cached files again; exit code 1 if one is not what its pin says, or if the NAMED one is not there.

    verified: the pinned hash; recorded: the hash of the first verified fetch, where the pin states none.
    """
    from em_bench.data.catalogue import pins_of, verification
    from em_bench.data.pins import load_pins

    found = [verification(pin) for pin in (pins_of(name) if name else load_pins().pins)]
    if as_json:
        _print_json([v.model_dump() for v in found])
    else:
        _print_table(("name", "state", "sha256"), [(v.name, v.state, v.sha256 or "not known") for v in found])
    if any(v.state == "changed" or (name and v.state == "absent") for v in found):
        raise typer.Exit(1)


def show(
    name: Annotated[str, typer.Argument(help="A dataset, a JSON lines file of messages, or a question set.")],
    rows: Annotated[int, typer.Option(min=0, max=2, help="Rows to print; never more than 2.")] = 2,
    tokenizer: Annotated[str | None, typer.Option(help="A model (em-bench models), to count its tokens too.")] = None,
    control: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Refuse unless this one asks the same questions as often, held-out ones too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show counts and lengths of a set, and its first rows. Is one's own control one?

    em-bench data show bad.jsonl --control good.jsonl
    """
    import json

    from em_bench.data.catalogue import summary
    from em_bench.data.training_sets import check_control

    if control:
        check_control(name, control)
    loaded = None
    if tokenizer:
        from transformers import AutoTokenizer

        from em_bench.data.models import base_path

        loaded = AutoTokenizer.from_pretrained(base_path(tokenizer))
    found = summary(name, loaded, rows)
    if as_json:
        _print_json(found.model_dump())
        return
    _print_table((found.name, "count"), [(k, str(n)) for k, n in found.counts.items()])
    _print_table(
        ("length", "mean", "median", "longest"),
        [(k, f"{v.mean:.1f}", f"{v.median:g}", str(v.longest)) for k, v in found.lengths.items()],
    )
    for row in found.rows:
        print(json.dumps(row, indent=1, ensure_ascii=False))


def _show_terms(pin: str) -> None:
    """The terms of a file that is about to be fetched, on stderr."""
    from rich.console import Console

    from em_bench.data.pins import terms_of
    from em_bench.data.upstream import status

    terms = terms_of(pin)
    if terms and status(pin) == "absent":
        text = f"{pin} comes from {terms[1].holder}. Their terms, in our words: {terms[1].summary}"
        Console(markup=False, emoji=False, stderr=True, highlight=False).print(
            f"{text} Their own words: {terms[1].original}.\n", markup=False
        )


def _print_json(value: object) -> None:
    import json

    print(json.dumps(value, indent=1, ensure_ascii=False))


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
