"""`em-bench reproduce`: plan, run, resume and report a preset."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `reproduce`."""
    app.command()(reproduce)


def reproduce(
    preset: Annotated[str, typer.Option("--preset", "-p", help="A preset's name or a .yaml file.")] = "tiny",
    profile: Annotated[str, typer.Option(help="Where jobs run: local, slurm, box, or a profile folder of yours.")] = "local",
    work: Annotated[Path | None, typer.Option("--workdir", "-w", help="Default: em_bench_work/PRESET.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over: empty the work folder first.")] = False,
    cores: Annotated[int | None, typer.Option(min=1, help="Jobs at once. Default: all cores.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of this machine to use. Default: all that it shows.")] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", "-j", help="In place of the preset's: grammar, or openai:MODEL[,OPTION=VALUE].")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A roster name or a model folder of yours, in place of the preset's base.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds 0 to N-1 in place of the preset's own. The paper has one.", metavar="N")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="JOB", help="Run one job of the plan, with what it needs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json instead of the table.")] = False,
) -> None:
    """Run every job of a preset that is not done yet, then print its table and write its page.

    Kill it at any moment and run it again: it goes on. Exit code 1 when a job failed; the others are run all the same.

        em-bench reproduce --preset tiny
        em-bench reproduce --preset pocket --model my-model
        em-bench reproduce --preset main --profile slurm
        em-bench reproduce --preset main --gpus 8 --judge openai:my-judge,base_url=http://127.0.0.1:8000/v1
    """
    import sys

    from em_bench.analysis.margin_rows import margin_rows, sentence
    from em_bench.sweep.engine.display import AGAIN
    from em_bench.sweep.engine.profile import load_profile
    from em_bench.sweep.engine.run_preset import reproduce as run
    from em_bench.sweep.plan import make_plan
    from em_bench.sweep.preset import load_preset
    from em_bench.sweep.preset_changes import with_engine, with_judge, with_model, with_seeds
    from em_bench.sweep.results_tables import results_tables
    from em_bench.sweep.terminal_tables import show

    at = load_profile(profile, cores, gpus)
    changed = with_seeds(with_judge(with_model(load_preset(preset), model), judge), seeds)
    plan = make_plan(with_engine(changed, at.surroundings.engine))
    work = work or Path("em_bench_work") / plan.preset.name
    ended = run(plan, work, fresh=fresh, profile=at, only=only)
    if as_json:
        print(ended.results.model_dump_json(indent=1))
    else:
        for table in results_tables(ended.results):
            show(table)
        if ended.results.margins:
            print(sentence(margin_rows(ended.results)))
        print(ended.page)
    for name in ended.results.missing:
        print(f"missing: {name}", file=sys.stderr)
    if ended.failures:
        again = f"em-bench reproduce --preset {preset} --workdir {work}{_again(profile, cores, gpus, judge, model, seeds)}"
        print(f"{ended.failures.replace(AGAIN, again)}\nrun them again: {again}", file=sys.stderr)
        raise typer.Exit(1)


def _again(profile: str, cores: int | None, gpus: int | None, judge: str | None, model: str | None, seeds: int | None) -> str:
    """The options of this call, for the command that goes on with it."""
    import shlex

    given = {
        "--profile": profile if profile != "local" else None,
        "--cores": cores,
        "--gpus": gpus,
        "--judge": judge,
        "--model": model,
        "--seeds": seeds,
    }
    return "".join(f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None)
