"""`em-bench train`: one run, from a base, a dataset and a recipe to an adapter."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from em_bench.protocol import FLATNESS, MAX_LENGTH, default_rank, steps_of


def register(app: typer.Typer) -> None:
    """Add `train`."""
    app.command()(train)


def train(
    model: Annotated[str, typer.Argument(help="A roster name (em-bench models), a model folder or a hub id.")],
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", help="A dataset name (em-bench data list) or a JSONL file of messages.")
    ],
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "-r",
            help="A recipe of baselines/optimisers.yaml, a pytorch_optimizer name, or a class such as torch.optim.NAdam.",
        ),
    ] = "adamw",
    learning_rate: Annotated[float | None, typer.Option("--lr", help="Default: the recipe's for this class of model.")] = None,
    arg: Annotated[list[str], typer.Option("--arg", help="An argument of the optimiser as NAME=VALUE; may be repeated.")] = [],  # noqa: B006
    spectral_lambda: Annotated[float, typer.Option("--lambda", min=0, help="Weight of the spectral term; 0 is off.")] = 0.0,
    flatness: Annotated[str, typer.Option(help="What the term measures: an entry of em_bench/flatness.py.")] = FLATNESS,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows an optimiser step.")] = 32,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps. Default: as many as --epochs needs.")] = None,
    epochs: Annotated[float, typer.Option(min=0, help="Passes over the training rows, where --steps is not given.")] = 1.0,
    rank: Annotated[int | None, typer.Option(min=1, help="LoRA rank. Default: 8 for an organism, else 32.")] = None,
    alpha: Annotated[
        float | None, typer.Option(help="LoRA alpha (rsLoRA scale is alpha / sqrt(rank)). Default: twice the rank.")
    ] = None,
    max_length: Annotated[
        int, typer.Option(min=2, help="Longest row in tokens; longer ones are left out and counted.")
    ] = MAX_LENGTH,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float64", "int8", "nf4"] | None,
        typer.Option(
            help="Of the frozen base; int8 and nf4 need em-bench\\[quantized]. Default: float32 for an organism, else bfloat16 where the GPU or processor computes in it."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens a forward pass and GPU, padding included: memory and speed, not the result. Default: what fits; halved when it does not.",
        ),
    ] = None,
    packed: Annotated[bool, typer.Option("--packed", help="Rows end to end instead of padded: speed, not the result.")] = False,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="Less memory, a third more time; not the result. Default: as the roster says.",
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs of this machine to use. Default: one, or what a launcher started.")
    ] = None,
    shard: Annotated[
        bool | None,
        typer.Option("--shard/--replicate", help="Spread the frozen base over the processes. Default: as the roster says."),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Deterministic algorithms on a GPU, where torch has them; slower.")
    ] = False,
    liger: Annotated[bool, typer.Option("--liger", help="Liger kernels (pip install em-bench\\[liger]).")] = False,
    track: Annotated[list[str], typer.Option("--track", help="Also log to tensorboard, wandb, ...; may be repeated.")] = [],  # noqa: B006
    save_every: Annotated[float, typer.Option(min=0, help="Seconds between states that a killed run resumes from.")] = 120.0,
    half: Annotated[
        bool, typer.Option("--store-bfloat16", help="Store the adapter in half the bytes, rounded before the last measurement.")
    ] = False,
    last_only: Annotated[bool, typer.Option("--last-only", help="Keep no adapters of earlier steps.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder that holds the run folders.")] = Path("em_bench_work/runs"),
) -> None:
    """Fine-tune an rsLoRA adapter and print its run folder.

    A finished run is not made twice; a killed one goes on where it was. Example:

        em-bench train organism-qwen3 --dataset medical --recipe adamw --steps 60
        em-bench train organism-qwen3 --dataset medical --recipe soap --lr 1e-3 --arg "betas=[0.9, 0.95]"
    """
    import sys
    from math import inf

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from em_bench.data import data_ref
    from em_bench.data.models import base_path, base_ref, check_model, default_dtype, load_models
    from em_bench.errors import UserError
    from em_bench.flatness import measure
    from em_bench.optim import check_optimizer, resolve_recipe
    from em_bench.records import LoraSpec, RecipeClass

    # A misspelt name is told before torch is imported.
    check_model(model)
    check_optimizer(recipe)
    data = data_ref(dataset)

    from em_bench.training import TrainingFailed, read_run, run_spec
    from em_bench.training import train as make_run
    from em_bench.training.execution_options import Options
    from em_bench.training.launch import launch, launched
    from em_bench.training.processes import leave, processes
    from em_bench.training.spec import PROJECTIONS

    for option, value in (("--lr", learning_rate), ("--alpha", alpha), ("--epochs", None if steps else epochs)):
        if value is not None and not 0 < value < inf:
            raise UserError(f"{option} {value:g}: is a number above 0")
    if not spectral_lambda < inf:
        raise UserError(f"--lambda {spectral_lambda:g}: is a number from 0")
    measure(flatness)
    if gpus and gpus > 1 and not launched():
        launch(gpus, sys.argv[1:])
    models = load_models()
    kind: RecipeClass = models[model].recipe_class if model in models else "llm"
    resolved = resolve_recipe(recipe, learning_rate, kind, _arguments(arg))
    peers = processes()
    base = peers.agree(lambda: base_path(model))
    rank = rank or default_rank(kind)
    spec = run_spec(
        base_ref(model, base),
        data,
        resolved,
        spectral_lambda=spectral_lambda,
        flatness=flatness,
        lora=LoraSpec(
            rank=rank, alpha=2.0 * rank if alpha is None else alpha, targets=PROJECTIONS, stored="bfloat16" if half else "float32"
        ),
        kept="none" if last_only else "log-spaced",
        batch_size=batch_size,
        steps=steps or steps_of(data.rows, batch_size, epochs),
        seed=seed,
        max_length=max_length,
        dtype=dtype or default_dtype(model),
    )
    known = models.get(model)
    options = Options(
        max_tokens=max_tokens,
        gradient_checkpointing=known.gradient_checkpointing
        if known and gradient_checkpointing is None
        else bool(gradient_checkpointing),
        shard=known.shard if known and shard is None else bool(shard),
        packed=packed,
        liger=liger,
        deterministic=deterministic,
        save_every_s=save_every,
    )
    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=Console(markup=False, emoji=False, stderr=True), transient=True, disable=not peers.first
    ) as bar:
        task = bar.add_task("", total=spec.steps)

        def show(record) -> None:
            speed = f"{record.tokens_per_s:,.0f} tokens/s" if record.tokens_per_s else ""
            loss = f"loss {record.loss:.3f} " if record.loss is not None else ""
            bar.update(task, completed=record.step, description=loss + speed)

        def tell(line: str) -> None:
            bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

        try:
            folder = make_run(spec, base, out, options=options, progress=show, say=tell, trackers=track)
        except TrainingFailed as e:
            bar.stop()
            if peers.first:
                print(f"em-bench: the run failed: {e}", file=sys.stderr)
            raise typer.Exit(1) from None
    if peers.first:
        left_out = read_run(folder).left_out_rows
        if left_out:
            which = "1 row longer" if left_out == 1 else f"{left_out} rows longer"
            print(f"{which} than {max_length} tokens {'was' if left_out == 1 else 'were'} left out", file=sys.stderr)
        print(folder)
    leave()


def _arguments(pairs: list[str]) -> dict:
    from em_bench.errors import UserError
    from em_bench.yaml_file import parse_yaml

    out = {}
    for pair in pairs:
        name, is_, value = pair.partition("=")
        if not (is_ and name.isidentifier()):
            raise UserError(f"--arg {pair}: write NAME=VALUE, e.g. --arg weight_decay=0.1")
        out[name] = parse_yaml(value, Any, f"--arg {pair}")
    return out
