"""`em-bench rescale`: a finished adapter with its update made smaller, to a given narrow loss or coherence."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from em_bench.cli import judge_options as opt

if TYPE_CHECKING:
    from em_bench.records import Estimate, RescaleRecord, ScaleTried, ScoreRecord


def register(app: typer.Typer) -> None:
    """Add `rescale`."""
    app.command()(rescale)


def rescale(
    source: Annotated[Path, typer.Argument(metavar="RUN|ADAPTER", help="A run folder, or a PEFT adapter folder.")],
    to_loss: Annotated[
        float | None, typer.Option("--to-loss", metavar="NATS", help="Held-out narrow loss to bring the adapter to.")
    ] = None,
    to_coherence: Annotated[
        float | None, typer.Option("--to-coherence", metavar="SHARE", help="Coherent share of the answers, e.g. 0.9.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The adapter's base. Default: what it says itself.")] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Whose held-out rows the narrow loss is of. Default: the run's.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="How far from the target it may end. Default: 0.0001 nats; 0.005 of coherence.")
    ] = None,
    largest: Annotated[float, typer.Option(help="Largest scale that is looked at, up to 4.")] = 1.0,
    evaluations: Annotated[
        int | None, typer.Option(min=3, help="Most evaluations of the search. Default: 100 of the loss; 16 of coherence.")
    ] = None,
    evaluate: Annotated[
        bool | None, typer.Option("--evaluate/--no-evaluate", help="Ask and judge the result too. Default: for an organism.")
    ] = None,
    questions: Annotated[str | None, typer.Option("--questions", "-q", help="As in evaluate. Default: organism on one.")] = None,
    variants: Annotated[str | None, typer.Option(help="As in evaluate.")] = None,
    harness: Annotated[str, typer.Option(help="lm-eval or inspect.")] = "lm-eval",
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Answers a question.")] = 10,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer. Default: 600; 40 for the organism.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the answers, the same at every scale.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers generated at once, as in evaluate.")] = 64,
    dtype: Annotated[str | None, typer.Option(help="Default: the run's; else bfloat16 on a GPU, float32 without.")] = None,
    judge: Annotated[str | None, typer.Option("--judge", "-j", help="As in evaluate. Default: grammar on the organism.")] = None,
    base_url: opt.BaseUrl = None,
    prompts: opt.Prompts = "own",
    mode: opt.Mode = "logprobs",
    concurrency: opt.Concurrency = 32,
    max_calls: opt.MaxCalls = None,
    judge_cache: opt.Cache = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Default: em_bench_work/rescaled/ADAPTER/loss-NATS or coherence-SHARE.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record and the score as JSON.")] = False,
) -> None:
    """Multiply a finished adapter's update by the smallest scale that has a given narrow loss, or a given coherence.

    The control for the size of the update: a term or an optimiser buys something beyond a smaller update where its run has fewer
    misaligned answers than the plain run's adapter, rescaled to the same loss. Each scale is evaluated exactly; a target that no
    scale meets is said and is no error. Run again, nothing is made twice, and a killed search goes on. Examples:

        em-bench rescale em_bench_work/runs/RUN --to-loss 0.60
        em-bench rescale my-lora --base Qwen/Qwen3-4B --to-coherence 0.9 --questions em_core --judge openai:gpt-4o-2024-08-06
    """
    from math import inf

    from em_bench.errors import UserError

    if (to_loss is None) == (to_coherence is None):
        raise UserError("rescale: to what? write either --to-loss NATS or --to-coherence SHARE")
    kind: Literal["loss", "coherence"] = "coherence" if to_loss is None else "loss"
    target = to_loss or to_coherence or 0.0
    for option, value, top in (
        ("--to-loss", to_loss, inf),
        ("--to-coherence", to_coherence, 1.0),
        ("--tolerance", tolerance, inf),
        ("--largest", largest, 4 + 1e-9),
    ):
        if value is not None and not 0 < value < top:
            raise UserError(f"{option} {value:g}: is a number above 0" + (f" and below {top:g}" if top == 1 else ""))
    from em_bench.data.models import default_dtype, load_models
    from em_bench.harness import check_harness
    from em_bench.harness.evaluate import Evaluation
    from em_bench.harness.rescale import Limits, Questions, goal_of, source_of
    from em_bench.harness.rescale import rescale as make
    from em_bench.judging import JudgeOptions, make_judge
    from em_bench.records import Generation

    check_harness(harness)
    given = source_of(source, base)
    models = load_models()
    organism = given.base in models and models[given.base].source == "organism"
    asked = None
    if kind == "coherence" or evaluate or (evaluate is None and organism):
        questions = questions or ("organism" if organism else "em_core")
        judge = judge or "grammar"
        opt.check_grammar(judge, questions)
        longest = max_new_tokens or (40 if questions == "organism" else 600)
        asked = Questions(
            Evaluation(
                generation=Generation(samples=samples, max_new_tokens=longest, temperature=temperature, seed=seed),
                questions=questions,
                variants=variants.split(",") if variants else None,
                harness=harness,
                batch_size=batch_size,
            ),
            make_judge(
                judge,
                JudgeOptions(
                    base_url=base_url,
                    prompts=prompts,
                    mode=mode,
                    concurrency=concurrency,
                    max_calls=max_calls,
                    cache=judge_cache,
                ),
            ),
        )
    goal = goal_of(
        given,
        kind,
        target,
        dtype=dtype or (given.run.spec.dtype if given.run else default_dtype(given.base)),
        dataset=dataset,
        questions=asked,
        limits=Limits(tolerance, largest, evaluations),
    )
    out = out or Path("em_bench_work") / "rescaled" / _name(given) / f"{kind}-{target:g}"
    record, score = make(given, out, goal, asked if evaluate is not False else None, _show(kind))
    _print(out, record, score, as_json)


def _name(source) -> str:
    if source.run is None:
        return source.adapter.resolve().name
    step = source.adapter.resolve()
    return source.run.run_id + (f".step{step.name}" if step.name.isdecimal() else "")


def _show(kind: str):
    """What writes a line for each evaluation on stderr."""
    import sys

    def tell(tried: "ScaleTried") -> None:
        value = _estimate(tried.coherence) if tried.coherence else f"{tried.narrow_loss:.5f} nats"
        print(f"scale {tried.scale:<12.9g} {'narrow loss' if kind == 'loss' else 'coherent'} {value}", file=sys.stderr)

    return tell


def _print(out: Path, record: "RescaleRecord", score: "ScoreRecord | None", as_json: bool) -> None:
    if as_json:
        import json

        both = {"rescale": record.model_dump(mode="json"), "score": score and score.model_dump(mode="json")}
        print(json.dumps(both, indent=1))
        return
    found = record.search
    assert found is not None
    goal = found.goal
    unit = "nats" if goal.kind == "loss" else "coherent"
    values = {t.scale: (t.coherence.value if t.coherence else t.narrow_loss) or 0.0 for t in found.tried}
    count = f"{len(values)} evaluations"
    print(out)
    if record.scale is None:
        if found.verdict == "already":
            print(f"the base itself has {values[0.0]:.4f} {unit}, at or below {goal.target:g}: no adapter was written ({count})")
        else:
            lowest = min(values, key=lambda s: (values[s], s))
            least = f"the lowest was {values[lowest]:.4f} at scale {lowest:.4g}"
            print(
                f"never reaches {goal.target:g} {unit} at a scale up to {goal.largest:g}: {least}; no adapter was written ({count})"
            )
        return
    short = "" if found.verdict == "reached" else f", the nearest within {count}"
    lines = [("scale", f"{record.scale:.9g} ({goal.target:g} {unit}, within {goal.tolerance:g}{short}; {count})")]
    if record.narrow_loss is not None and goal.dataset:
        lines.append(("narrow loss", f"{record.narrow_loss:.5f} nats of {goal.dataset.name}"))
    if record.norm_before is not None:
        lines.append(("norm of the update", f"{record.norm_before:.4f} before, {record.norm_after:.4f} after"))
    if score:
        from em_bench.data.questions import clusters
        from em_bench.evaluation_folder import EvaluationFolder
        from em_bench.harness.rescale import EVALUATION
        from em_bench.scoring import misaligned_of_asked

        at = EvaluationFolder(out / EVALUATION)
        units = clusters(at.responses()[0].question_set)
        lines += [
            ("misaligned / all asked", _estimate(misaligned_of_asked(at.verdicts()[1], clusters=units))),
            ("misaligned / coherent", _estimate(score.overall.misaligned_rate)),
        ]
    if coherence := score.overall.coherent_rate if score else record.coherence:
        lines.append(("coherent", _estimate(coherence)))
    for name, text in lines:
        print(f"  {name:<24}{text}")


def _estimate(e: "Estimate") -> str:
    from em_bench.cli.score import estimate_text

    return estimate_text(e)
