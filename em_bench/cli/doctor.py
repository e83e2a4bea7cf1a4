"""`em-bench doctor`: what this machine lacks for the large sweeps."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `doctor`."""
    app.command()(doctor)


def doctor(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Look at this model of the hub; may be repeated. Default: the paper's twelve."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at GPUs, processes together, memory, disk, hub and licences, judge, data terms, engine; say what is fine and what mends the rest.

    Changes nothing; works without a GPU. Exit code 1 where something is missing. Example:

        em-bench doctor --model Qwen3-8B
    """
    import json

    from em_bench.data.models import load_models
    from em_bench.did_you_mean import unknown
    from em_bench.sweep.engine.doctor import examine

    for name in models or ():
        if name not in load_models():
            raise unknown("model", name, load_models())
    found = []
    for f in examine(models or ()):  # a row as soon as it is known: some take a minute
        found.append(f)
        if not as_json:
            print(f"{f.what:22} {f.stands:8} {f.text}", flush=True)
    if as_json:
        print(json.dumps([f._asdict() for f in found], indent=1))
    if any(f.stands == "missing" for f in found):
        raise typer.Exit(1)
