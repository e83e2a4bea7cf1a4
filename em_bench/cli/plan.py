"""`em-bench plan`: what a preset would run, and what it would cost."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `plan`."""
    app.command()(plan)


def plan(
    preset: Annotated[str, typer.Option("--preset", "-p", help="A preset's name or a .yaml file.")] = "tiny",
    gpu: Annotated[str, typer.Option(help="The kind of GPU: h200, h100, a100, b200, l40s.")] = "h200",
    gpus: Annotated[int, typer.Option(min=0, help="How many there are. Default: 8, or as many as the largest job needs.")] = 0,
    cores: Annotated[int | None, typer.Option(min=1, help="Jobs without a GPU at once. Default: all cores.")] = None,
    utilisation: Annotated[float, typer.Option(help="Share of the GPU's peak that training reaches.")] = 0.3,
    row_tokens: Annotated[int, typer.Option(min=2, help="Tokens of a training row, half of them the answer's.")] = 512,
    measured_in: Annotated[
        Path | None, typer.Option("--measured", help="A work folder: take its measured throughput in place of assumptions.")
    ] = None,
    judge: Annotated[str | None, typer.Option("--judge", "-j", help="In place of the preset's judge.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds 0 to N-1 in place of the preset's own. The paper has one.", metavar="N")
    ] = None,
    judge_price: Annotated[
        str,
        typer.Option(help="US dollars a million prompt and reply tokens of the judge. Default: list price of gpt-4o, 2026-04."),
    ] = "2.5,10",
    jobs: Annotated[bool, typer.Option("--jobs", help="List every job, also where there are many.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan and its costs as JSON.")] = False,
) -> None:
    """Say what a preset would run: runs, jobs, GPU-hours, disk, judge calls and their cost, and how long it takes.

    Runs and fetches nothing. Estimates are meant to be good to a factor of two. Example:

        em-bench plan --preset main --gpu a100 --gpus 16
    """
    import json

    with _uncollected():
        from em_bench.errors import UserError
        from em_bench.sweep.job_time import PEAK_TFLOPS, Assumptions, all_cores
        from em_bench.sweep.plan import make_plan
        from em_bench.sweep.preset import load_preset
        from em_bench.sweep.preset_changes import with_judge, with_seeds
        from em_bench.sweep.terminal_tables import FEW, plan_table, show, totals_tables, transfer_text
        from em_bench.sweep.throughput import measured
        from em_bench.sweep.totals import totals

        if gpu not in PEAK_TFLOPS:
            raise UserError(f"--gpu {gpu}: not known; name one of {', '.join(PEAK_TFLOPS)}")
        if not 0 < utilisation <= 1:
            raise UserError(f"--utilisation {utilisation:g}: a share of the peak lies above 0 and is at most 1")
        assume = Assumptions(
            gpu=gpu, utilisation=utilisation, row_tokens=row_tokens, answer_tokens=row_tokens // 2,
            **(measured(measured_in) if measured_in else {}),
        )  # fmt: skip
        planned = make_plan(with_seeds(with_judge(load_preset(preset), judge), seeds), assume)
        cost = totals(planned, cores=cores or all_cores(), gpus=gpus, assume=assume, price=price_of(judge_price))
    if as_json:
        print(json.dumps({"costs": cost.model_dump(mode="json"), **planned.model_dump(mode="json")}, indent=1))
        return
    if jobs or len(planned.jobs) <= FEW:
        show(plan_table(planned))
    print(f"{planned.preset.name}: {planned.preset.summary}")
    if told := transfer_text(planned):
        print(told)
    for table in totals_tables(cost):
        show(table)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which takes a fifth of the time of planning: a great many small objects, hardly any of them garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def price_of(text: str):
    """The price that is written so. Raises UserError."""
    from em_bench.errors import UserError
    from em_bench.judging.providers import JudgePrice

    try:
        prompt, reply = (float(part) for part in text.split(","))
        return JudgePrice(prompt_usd=prompt, reply_usd=reply, **({} if text == "2.5,10" else {"as_of": "yours"}))
    except ValueError:
        raise UserError(f"--judge-price {text}: write two numbers, e.g. 2.5,10") from None
