"""`em-bench agree-engines`: does a server answer as transformers does?"""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `agree-engines`."""
    app.command("agree-engines")(agree_engines)


def agree_engines(
    model: Annotated[str, typer.Argument(help="A roster name, a model folder or a hub id.")],
    adapter: Annotated[Path | None, typer.Option("--adapter", "-a", help="A PEFT adapter folder.")] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="A server that has it. Default: a vLLM of our own ($EM_BENCH_VLLM).")
    ] = None,
    served: Annotated[str | None, typer.Option(metavar="NAME", help="The server's name for it.")] = None,
    engine_python: Annotated[Path | None, typer.Option(help="The interpreter of vLLM's environment.", show_default=False)] = None,
    questions: Annotated[str, typer.Option("--questions", "-q", help="A question set.")] = "em_core",
    limit: Annotated[int, typer.Option(min=1, help="The first so many questions.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 32,
    dtype: Annotated[str | None, typer.Option(help="That the model is run in here, and by our vLLM.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare greedy answers and first-token log-probabilities of a server with those of transformers, on the same weights.

    The second row is what arithmetic alone does: transformers in that dtype against transformers in float32. A server that
    differs by much more than it has another template, another adapter or other weights.

        em-bench agree-engines SmolLM2-135M-q4 --adapter RUN/adapter --engine-python VLLM/bin/python
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from em_bench.data.models import base_path, check_model, default_dtype
    from em_bench.data.questions import load
    from em_bench.errors import UserError
    from em_bench.harness.load_model import load_model
    from em_bench.harness.served.agreement import compare, greedy_local, greedy_served
    from em_bench.harness.served.answers import Server, ends_of
    from em_bench.harness.served.run import running_vllm

    if bool(server) != bool(served):
        raise UserError("--server URL and --served NAME go together")
    check_model(model)
    asked = load(questions, None, limit)
    dtype, folder = dtype or default_dtype(model), base_path(model, progress=True)
    if server and served:
        said = greedy_served(Server(server), served, asked, max_new_tokens, ends_of(folder))
    else:
        with running_vllm(model, [adapter] if adapter else [], dtype, engine_python) as (ours, names):
            said = greedy_served(ours, names[0], asked, max_new_tokens, ends_of(folder))
    local = {
        d: greedy_local(load_model(model, adapter, dtype=d), asked, max_new_tokens) for d in dict.fromkeys((dtype, "float32"))
    }
    rows = {f"the server, transformers {dtype}": compare(said, local[dtype])}
    if dtype != "float32":
        rows[f"transformers {dtype}, float32"] = compare(local[dtype], local["float32"])
    if as_json:
        print(json.dumps({name: row._asdict() for name, row in rows.items()}, indent=1))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("", "same answer", "same first token", "answer kept", "first token's alternatives", "mean", "largest"):
        table.add_column(head, justify="right" if head else "left", no_wrap=not head)
    for name, r in rows.items():
        nats = ["" if v is None else f"{v:.2g} nats" for v in (r.mean, r.largest)]
        shares = [f"{n} of {r.questions}" for n in (r.same_answer, r.same_first_token)]
        table.add_row(name, *shares, f"{r.kept:.0%}", str(r.compared), *nats)
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
