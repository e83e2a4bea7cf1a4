"""`em-bench agree`: how far two judges agree, and how noisy one judge is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from em_bench.cli.score import ConventionName

if TYPE_CHECKING:
    from em_bench.records import JudgeIdentity
    from em_bench.scoring import Agreement, JudgeNoise


def register(app: typer.Typer) -> None:
    """Add `agree`."""
    app.command()(agree)


def agree(
    first: Annotated[Path, typer.Argument(help="A verdicts.jsonl, or the folder that holds it.")],
    second: Annotated[Path, typer.Argument(help="Another judge's verdicts on the same responses.")],
    convention: ConventionName = "code_as_zero",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the outcomes of two judges side by side, Cohen's kappa and the mean absolute differences of their scores.

    Where one judge judged twice (`em-bench rejudge --run 2`), also the noise that its judging adds to the interval.

        em-bench agree evaluation/verdicts.jsonl evaluation/judges/gpt-4o-2024-08-06-1a2b3c4d
    """
    import json

    from em_bench.errors import UserError
    from em_bench.evaluation_folder import VERDICTS
    from em_bench.files import read_jsonl
    from em_bench.records import Verdict, VerdictsHeader
    from em_bench.scoring import agreement, convention_of, judge_noise

    counted = convention_of(convention, "--convention")
    paths = [p / VERDICTS if p.is_dir() else p for p in (first, second)]
    (a, said), (b, again) = (read_jsonl(p, VerdictsHeader, Verdict) for p in paths)
    if a.responses_sha256 != b.responses_sha256:
        raise UserError(f"{paths[1]}: verdicts on other responses than {paths[0]}; judge the same responses.jsonl")
    found = agreement(said, again, counted)
    twice = but_run(a.judge) == but_run(b.judge)
    noise = judge_noise(said, again, counted) if twice else None
    same_run = twice and a.judge == b.judge and a.judge.kind != "grammar"
    if as_json:
        out = {
            "judges": [a.judge.model_dump(mode="json"), b.judge.model_dump(mode="json")],
            "agreement": found.model_dump(mode="json"),
            "judge_noise": noise and noise.model_dump(mode="json"),
            "same_run": same_run,
            "forced": a.forced,
        }
        print(json.dumps(out, indent=1))
        return
    _show(a.judge, b.judge, found, noise)
    if a.forced:
        print(f"forced: the adapter {a.forced}")
    if same_run:
        run = a.judge.decoding.get("run")
        print(f"Both are run {run} of one judge, perhaps the same cached replies; for its noise judge again with --run 2.")


def but_run(judge: "JudgeIdentity") -> "JudgeIdentity":
    """The judge, whichever of its runs."""
    return judge.model_copy(update={"decoding": {k: v for k, v in judge.decoding.items() if k != "run"}})


def _show(a: "JudgeIdentity", b: "JudgeIdentity", found: "Agreement", noise: "JudgeNoise | None") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, highlight=False)
    console = console if console.is_terminal else Console(markup=False, emoji=False, width=160, highlight=False)
    seen = found.confusion
    shown = [o for o in seen if any(seen[o].values()) or any(row[o] for row in seen.values())]
    print(f"rows: {_name(a)}\ncolumns: {_name(b)}")
    table = Table(box=box.SIMPLE)
    table.add_column("")
    for name in shown:
        table.add_column(name, justify="right")
    for name in shown:
        table.add_row(name, *(str(found.confusion[name][other]) for other in shown))
    console.print(table)
    for label, value in (
        ("same outcome", found.agree),
        ("Cohen's kappa", found.kappa),
        ("mean |difference| of alignment", found.alignment_difference),
        ("mean |difference| of coherence", found.coherence_difference),
    ):
        print(f"{label:<32}{'undefined' if value is None else format(value, '.3f')}")
    print(f"of {found.both_judged} responses that both judged, of {found.n}")
    for label, field in (("misaligned rate", "misaligned_rate"), ("mean alignment", "mean_alignment")):
        if n := noise and getattr(noise, field):
            e = n.estimate
            interval = "" if e.low is None else f" [{e.low:.3f}, {e.high:.3f}], judge noise included"
            stderr = "" if n.judge_stderr is None else f"; judge's standard error {n.judge_stderr:.4f}"
            print(f"{label}: {n.first:.3f} and {n.second:.3f}, together {e.value:.3f}{interval}{stderr}")


def _name(judge: "JudgeIdentity") -> str:
    run = judge.decoding.get("run", 1)
    mode = ", numeric" if judge.decoding.get("mode") == "numeric" else ""
    return f"{judge.model}{mode}, prompts {judge.prompt_sha256[:8]}" + (f", run {run}" if run != 1 else "")
