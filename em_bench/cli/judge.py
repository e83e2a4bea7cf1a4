"""`em-bench judge`: what an endpoint can do as a judge, and how one judge's rates become another's."""

from typing import TYPE_CHECKING, Annotated

import typer

from em_bench.cli import judge_options as options
from em_bench.cli.judge_calibrate import calibrate

if TYPE_CHECKING:
    from em_bench.judging.probe import Probe

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add `judge` with its commands."""
    judge = typer.Typer(no_args_is_help=True, help="A judge before it is trusted: what its endpoint takes, what its rates mean.")
    judge.command("probe")(probe_)
    judge.command()(calibrate)
    app.add_typer(judge, name="judge")


def probe_(
    endpoint: Annotated[str, typer.Argument(help="Any OpenAI-compatible base URL, e.g. http://localhost:8000/v1.")],
    model: Annotated[str, typer.Argument(help="The model's name there.")],
    preset: Annotated[str, typer.Option("--preset", "-p", help="Say what judging this preset would cost.")] = "main",
    prompts: options.Prompts = "own",
    judge_price: Annotated[
        str | None,
        typer.Option(
            help="US dollars a million prompt and reply tokens, e.g. 2.5,10. Default: the list price, where it is known."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a model about ten times, and say what of a judge's settings it takes, what it would cost, and the command that fits.

    Exit code 1 where its replies cannot be read as grades. Example:

        em-bench judge probe https://api.openai.com/v1 gpt-4o-2024-08-06 --preset main
    """
    import json

    from em_bench.errors import UserError
    from em_bench.judging import JudgeOptions
    from em_bench.judging.asked import Failed
    from em_bench.judging.endpoint import host_of
    from em_bench.judging.probe import probe
    from em_bench.judging.providers import provider_model, retirement

    calls = _calls(preset, model)
    host = host_of(endpoint)
    try:
        found = probe(model, endpoint, JudgeOptions(prompts=prompts))
    except Failed as e:
        raise UserError(f"judge {model} at {host}: {e}") from None
    known = provider_model(model, host)
    cost = _cost(found, calls, known.price() if known else None, judge_price)
    leaves, _ = retirement(model, host)
    if as_json:
        print(
            json.dumps(found.model_dump() | {"preset": preset, "preset_calls": calls, "cost": cost, "leaves": leaves}, indent=1)
        )
    else:
        _show(found, f"{preset}: {cost}", leaves, endpoint)
    if found.mode is None:
        raise typer.Exit(1)


def _calls(preset: str, model: str) -> int:
    from em_bench.sweep.job_time import Assumptions, all_cores
    from em_bench.sweep.plan import make_plan
    from em_bench.sweep.preset import load_preset
    from em_bench.sweep.preset_changes import with_judge
    from em_bench.sweep.totals import totals

    plan = make_plan(with_judge(load_preset(preset), f"openai:{model}"), assume := Assumptions(gpu="h200"))
    return totals(plan, cores=all_cores(), gpus=0, assume=assume).judge_calls


def _cost(found: "Probe", calls: int, price, given: str | None) -> str:
    from em_bench.cli.plan import price_of
    from em_bench.judging.providers import judging_cost

    price = price_of(given) if given else price
    hours = f"{calls * found.seconds / 32 / 3600:,.1f} hours at 32 calls at once, if they take no longer than one"
    if price is None:
        return f"{calls:,} calls; no list price is known (--judge-price); {hours}"
    tokens = {"prompt_tokens": found.prompt_tokens, "reply_tokens": found.reply_tokens}
    price = price.model_copy(update={k: max(v, getattr(price, k)) for k, v in tokens.items() if v})
    return f"{judging_cost(calls, 1, price)}; {hours}"


def _show(found: "Probe", cost: str, leaves: str, endpoint: str) -> None:
    print(f"{found.model} at {found.host}: {found.calls} calls, {found.seconds:.2f} s each")
    for name, said in (found.settings | {f"grade of a {n} answer": g for n, g in found.grades.items()}).items():
        print(f"  {name:<28}{said}")
    if found.prompt_tokens:
        print(f"  {'tokens a call':<28}{found.prompt_tokens} + {found.reply_tokens}")
    print(f"  {'switched off':<28}{leaves or 'nothing is known (baselines/judge_endpoints.yaml)'}")
    print(f"  {'cost':<28}{cost}")
    if found.mode is None:
        print(f"It cannot judge like this: {found.why}")
        return
    if found.grades["kind"] == found.grades["cruel"]:
        print("It grades a kind answer as a cruel one: look at the prompts, or take another judge.")
    if found.why:
        print(f"Not by probabilities: {found.why}")
    longer = f",max_tokens={found.max_tokens}" if found.max_tokens > 16 else ""
    numeric = " --mode numeric" if found.mode == "numeric" else ""
    print(f"em-bench rejudge RESPONSES --judge openai:{found.model}{longer} --base-url {endpoint}{numeric}")
