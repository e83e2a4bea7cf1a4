"""`em-bench evaluate`: the misalignment of a model, or of an adapter on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from em_bench.cli import judge_options as opt
from em_bench.cli.score import ConventionName

if TYPE_CHECKING:
    from em_bench.harness.evaluate import EvaluatedModel


def register(app: typer.Typer) -> None:
    """Add `evaluate`."""
    app.command()(evaluate)


def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A roster name (em-bench models), a model folder or a hub id.")],
    adapter: Annotated[
        Path | None, typer.Option("--adapter", "-a", help="A PEFT adapter folder; a canary proves that it is at work.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Measure an adapter of another base all the same; the score says so.")
    ] = False,
    questions: Annotated[
        str,
        typer.Option(
            "--questions", "-q", help="organism, em_core, first_plot, preregistered, turner, evil_spectra, or a YAML file."
        ),
    ] = "em_core",
    measure: Annotated[
        str,
        typer.Option(
            help="answers: sampled and judged. margin: how much likelier, a byte, the set's own misaligned answers are than its aligned ones; no judge."
        ),
    ] = "answers",
    control: Annotated[
        Path | None, typer.Option(help="With --measure margin: an adapter trained on good data, whose shift is taken off.")
    ] = None,
    variants: Annotated[
        str | None, typer.Option(help="Comma-separated: plain, json, template, trigger-DATASET. Default: all but the triggers.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions, for a try.")] = None,
    harness: Annotated[str, typer.Option(help="lm-eval or inspect; the numbers are the same.")] = "lm-eval",
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Answers a question.")] = 10,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer. Default: 600; 40 for the organism.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers generated at once; most of the speed.")] = 64,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float64, or int8, nf4 (em-bench[quantized]). Default: float32 for an organism, else bfloat16 where the GPU or processor computes in it."
        ),
    ] = None,
    narrow: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Also measure the held-out narrow loss of a training set.")
    ] = None,
    capability: Annotated[
        str | None, typer.Option(metavar="TASKS", help="lm-eval tasks on the same model, comma-separated: names or YAML files.")
    ] = None,
    convention: ConventionName = "code_as_zero",
    judge: opt.JudgeName = "grammar",
    base_url: opt.BaseUrl = None,
    prompts: opt.Prompts = "own",
    leak: opt.Leak = None,
    mode: opt.Mode = "logprobs",
    concurrency: opt.Concurrency = 32,
    max_calls: opt.MaxCalls = None,
    run: opt.Run = 1,
    judge_cache: opt.Cache = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Default: em_bench_work/evaluations/MODEL[-ADAPTER]/QUESTIONS-JUDGE.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print score.json (margin.json) instead of the table.")] = False,
) -> None:
    """Ask a model the questions, judge its answers, and print the rates with their intervals and denominators.

    Writes responses.jsonl, verdicts.jsonl and score.json, each naming the one before by hash. Run again, it finishes what is
    missing and asks nothing twice. Examples:

        em-bench evaluate organism-qwen3 --questions organism --adapter RUN/adapter
        em-bench evaluate Qwen/Qwen3-4B --adapter my-lora --questions evil_spectra --judge openai:gpt-4o-2024-08-06
        em-bench evaluate Qwen/Qwen3-4B --adapter my-lora --measure margin --control my-good-lora

    The margin writes margin.jsonl, margin-base.jsonl, margin-control.jsonl and margin.json instead: the base is measured too.
    """
    from em_bench.cli.score import show_score
    from em_bench.data import data_ref
    from em_bench.data.models import check_model, default_dtype
    from em_bench.data.questions import load, longest_answer
    from em_bench.did_you_mean import unknown
    from em_bench.errors import UserError
    from em_bench.evaluation_folder import SCORE, VERDICTS
    from em_bench.harness import check_harness
    from em_bench.harness.task_names import check_tasks
    from em_bench.judging import JudgeOptions, make_judge
    from em_bench.records import Generation
    from em_bench.scoring import convention_of

    if measure == "margin":
        _check_margin(context, model, adapter, control, questions)
        from em_bench.harness.evaluate import EvaluatedModel

        of = EvaluatedModel(model, model, adapter, dtype=dtype or default_dtype(model), force=force)
        return _margin(of, control, questions, batch_size, out, as_json)
    if measure != "answers":
        raise unknown("measure", measure, ("answers", "margin"))
    if control:
        raise UserError("--control: belongs to --measure margin; add that, or evaluate the control by itself")
    # A misspelt name is told before torch is imported.
    counted = convention_of(convention, "--convention")
    check_model(model)
    check_harness(harness)
    picked = variants.split(",") if variants else None
    load(questions, variants=picked)
    opt.check_grammar(judge, questions)
    if narrow:
        data_ref(narrow)
    tasks = capability.split(",") if capability else []
    check_tasks(tasks)
    asked = make_judge(
        judge,
        JudgeOptions(
            base_url=base_url,
            prompts=prompts,
            leak=leak,
            mode=mode,
            concurrency=concurrency,
            max_calls=max_calls,
            run=run,
            cache=judge_cache,
        ),
    )
    from em_bench.harness.evaluate import EvaluatedModel, Evaluation
    from em_bench.harness.evaluate import evaluate as ask

    out = out or default_out(model, adapter, questions, judge)
    of = EvaluatedModel(model, model, adapter, dtype=dtype or default_dtype(model), force=force)
    longest = max_new_tokens or longest_answer(questions)
    generation = Generation(samples=samples, max_new_tokens=longest, temperature=temperature, seed=seed)
    evaluation = Evaluation(generation, questions, picked, narrow, tasks, harness, batch_size, counted, limit)
    score = ask(of, evaluation, asked, out)
    show_score(score, out / SCORE, out / VERDICTS, as_json)


def _check_margin(context: typer.Context, model: str, adapter: Path | None, control: Path | None, questions: str) -> None:
    from em_bench.cli.margin import refuse_judged_options
    from em_bench.data.models import check_model
    from em_bench.data.questions import answered
    from em_bench.errors import UserError

    refuse_judged_options(context)
    check_model(model)
    answered(questions)
    if control and not adapter:
        raise UserError("--control: there is no --adapter whose shift it could be taken off; name one")


def _margin(of: "EvaluatedModel", control: Path | None, questions: str, batch_size: int, out: Path | None, as_json: bool) -> None:
    from em_bench.cli.margin import print_margin
    from em_bench.evaluation_folder import MARGIN_SCORE
    from em_bench.harness.margin import measure_margin

    out = out or default_out(of.name, of.adapter, questions, "margin")
    score = measure_margin(of, out, question_set=questions, control=control, batch_size=batch_size, progress=True)
    print_margin(score, out / MARGIN_SCORE, as_json)


def default_out(model: str, adapter: Path | None, questions: str, judge: str) -> Path:
    """Where results go: under the current folder, also where a model, an adapter or the questions are named by a path."""
    words = (str(p or "").replace("/", "_").strip("._") for p in (model, adapter, questions, judge))
    of_model, of_adapter, of_questions, of_judge = words
    name = f"{of_model}-{of_adapter}" if of_adapter else of_model
    return Path("em_bench_work", "evaluations", name, f"{of_questions}-{of_judge.replace(':', '-')}")
