"""`em-bench evaluate`: the misalignment of a model, or of an adapter on it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from em_bench.cli import judge_options as opt
from em_bench.cli.asking import Ask, Served, ask, base_too, check_served, leaking, say_cost
from em_bench.cli.score import ConventionName

ENGINES = ("transformers", "vllm")
MEASURES = ("answers", "margin")


def register(app: typer.Typer) -> None:
    """Add `evaluate`."""
    app.command()(evaluate)


def evaluate(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="A model or an adapter: a folder, OWNER/NAME\\[@REVISION] of the hub, or a name of em-bench models. An adapter's base is the one that it names. With --server it may be left out.",
            show_default=False,
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            "--adapter", "-a", help="An adapter on TARGET, likewise; a canary proves that it is at work.", show_default=False
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of TARGET on the hub.", show_default=False)] = None,
    base: Annotated[
        bool | None,
        typer.Option(
            "--base/--no-base",
            help="Also ask an adapter's base, to end with both. Default: where the judge costs nothing.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Measure an adapter of another base all the same; the score says so.")
    ] = False,
    questions: Annotated[
        str | None,
        typer.Option(
            "--questions",
            "-q",
            help="organism, em_core, first_plot, preregistered, turner, evil_spectra, or a YAML file. Default: organism for one, else em_core.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="answers: sampled and judged. margin: how much likelier, a byte, the set's own misaligned answers are than its aligned ones; no judge. Default: answers where there is a judge or a server, else margin.",
            show_default=False,
        ),
    ] = None,
    control: Annotated[
        Path | None, typer.Option(help="With --measure margin: an adapter trained on good data, whose shift is taken off.")
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: plain, json, template, trigger-DATASET, context-system, context-string. Default: all but triggers and contexts.",
            rich_help_panel="Answers",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions, evenly over the domains.")] = None,
    harness: Annotated[
        str, typer.Option(help="lm-eval or inspect; the numbers are the same.", rich_help_panel="Answers")
    ] = "lm-eval",
    engine: Annotated[
        str,
        typer.Option(
            help="transformers: in this process. vllm: a server of vLLM's own environment, for GPUs.",
            rich_help_panel="Where it runs",
        ),
    ] = "transformers",
    engine_python: Annotated[
        Path | None,
        typer.Option(
            help="The interpreter of vLLM's environment. Default: $EM_BENCH_VLLM.",
            show_default=False,
            rich_help_panel="Where it runs",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ask a model that is served there, e.g. http://localhost:8000/v1.",
            rich_help_panel="Where it runs",
        ),
    ] = None,
    served: Annotated[
        str | None, typer.Option(metavar="NAME", help="The server's name for it.", rich_help_panel="Where it runs")
    ] = None,
    served_base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The server's name for its untouched base: the canary asks both.",
            rich_help_panel="Where it runs",
        ),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Answers a question.", rich_help_panel="Answers")] = 10,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer. Default: 600; 40 for the organism.", rich_help_panel="Answers")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.", rich_help_panel="Answers")] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, rich_help_panel="Answers")] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1, help="Answers generated at once, here or by a server; most of the speed.", rich_help_panel="Where it runs"
        ),
    ] = 64,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float64, or int8, nf4 (em-bench\\[quantized]). Default: float32 for an organism, else bfloat16 where the GPU or processor computes in it.",
            rich_help_panel="Where it runs",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, cuda:1, or auto: the layers over all GPUs. Default: a GPU where there is one.",
            show_default=False,
            rich_help_panel="Where it runs",
        ),
    ] = None,
    narrow: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET", help="Also measure the held-out narrow loss of a training set.", rich_help_panel="Answers"
        ),
    ] = None,
    capability: Annotated[
        str | None,
        typer.Option(
            metavar="TASKS",
            help="lm-eval tasks on the same model, comma-separated: names or YAML files.",
            rich_help_panel="Answers",
        ),
    ] = None,
    convention: ConventionName = "code_as_zero",
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            "-j",
            help="See em-bench rejudge. Default: grammar for the organism's questions; without one for others, the answers are kept and the margin is measured.",
            show_default=False,
            rich_help_panel="The judge",
        ),
    ] = None,
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
    """Measure a model, or an adapter beside its base, and end with one sentence: the rate, its interval, and the base's.

    An organism is asked and judged by its grammar. Another model is measured by the margin, unless a judge is named. Writes
    responses.jsonl, verdicts.jsonl and score.json (of the margin margin.jsonl, margin-base.jsonl, margin.json), each naming the
    one before by hash. Run again, it finishes what is missing and asks nothing twice. Examples:

        em-bench evaluate MY_LORA
        em-bench evaluate Qwen/Qwen3-4B --adapter my-lora --questions evil_spectra --judge openai:gpt-4o-2024-08-06
        em-bench evaluate Qwen/Qwen3-4B --adapter my-lora --measure margin --control my-good-lora

        em-bench evaluate Qwen/Qwen3-4B --adapter my-lora --engine vllm --judge openai:gpt-4o-2024-08-06
        em-bench evaluate --server http://localhost:8000/v1 --served my-model --judge openai:my-judge
    """
    from em_bench.cli.margin import MarginOptions, check_margin, judged_options, measured_margin, without_judge
    from em_bench.cli.score import show_score
    from em_bench.data import data_ref
    from em_bench.data.models import default_dtype
    from em_bench.data.questions import load, longest_answer
    from em_bench.did_you_mean import unknown
    from em_bench.errors import UserError
    from em_bench.evaluation_folder import BASE, SCORE, VERDICTS, default_out
    from em_bench.harness import check_harness
    from em_bench.harness.target import Target, resolve
    from em_bench.harness.task_names import check_tasks
    from em_bench.judging import NONE, JudgeOptions, make_judge
    from em_bench.records import Generation
    from em_bench.scoring import convention_of

    # A misspelt name is told before torch is imported.
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    at_server = Served(server, served, served_base) if server and served else None
    check_served(context, at_server)
    if model is None and not at_server:
        raise UserError("which model? name one, or a server that has one: --server URL --served NAME")
    if model is None and adapter:
        raise UserError(f"--adapter {adapter}: of which base? name the model before it")
    if measure not in (None, *MEASURES):
        raise unknown("measure", measure, MEASURES)
    target = resolve(model, adapter, revision) if model is not None else Target("")
    if target.organism:  # so small that beside other work two threads wait for each other: 20 answers a second, and 500 by one
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported
    questions = questions or ("organism" if target.organism else "em_core")
    judge = judge or ("grammar" if questions == "organism" else NONE)
    if measure is None:
        measure = "margin" if judge == NONE and not at_server and not judged_options(context) else "answers"
    name, own_out = target.base if adapter or model is None else model, out is not None
    if measure == "margin":
        if model is None or at_server:
            raise UserError("--measure margin: needs the weights; name the model, without --server")
        check_margin(context, target, control, questions)
        from em_bench.harness.evaluate import EvaluatedModel

        of = EvaluatedModel(
            target.base, name, target.adapter, dtype=dtype or default_dtype(target.base), force=force, device=device
        )
        out = out or default_out(target.base, target.adapter, questions, "margin")
        return measured_margin(of, questions, out, MarginOptions(control, limit, batch_size, as_json))
    if control:
        raise UserError("--control: belongs to --measure margin; add that, or evaluate the control by itself")
    counted = convention_of(convention, "--convention")
    check_harness(harness)
    picked = variants.split(",") if variants else None
    count = len(load(questions, variants=picked, limit=limit))
    opt.check_grammar(judge, questions)
    if narrow:
        data_ref(narrow)
        leak = leak or leaking(narrow, judge)
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

    out = out or default_out(target.base or served or "", target.adapter, questions, judge)
    computes = "" if at_server else dtype or default_dtype(target.base)
    of = EvaluatedModel(target.base, name or served or "", target.adapter, dtype=computes, force=force, device=device)
    longest = max_new_tokens or longest_answer(questions)
    generation = Generation(samples=samples, max_new_tokens=longest, temperature=temperature, seed=seed)
    evaluation = Evaluation(generation, questions, picked, narrow, tasks, harness, batch_size, counted, limit)
    how = Ask(evaluation, asked, at_server, engine, engine_python)
    beside = base_too(of, base, judge, as_json or at_server is not None or engine != "transformers")
    say_cost(target.base, evaluation, count, judge, 3 if leak not in (None, NONE) else 2, 2 if beside else 1)
    score, of_base = ask(of, how, out), None  # the adapter first: whatever is wrong with it is told before its base is asked
    if beside:
        of_base = out / BASE if own_out else default_out(target.base, None, questions, judge)
        plain = replace(evaluation, narrow_dataset=None, capability=())
        ask(replace(of, name=target.base, adapter=None), how._replace(evaluation=plain), of_base)
    show_score(score, out / SCORE, out / VERDICTS, as_json)
    if as_json:
        return
    if judge == NONE:
        without_judge(of, out, questions, sum(score.overall.counts.values()))
        return
    from em_bench.analysis.conclusion import beside_base, sentence

    print(f"\n{sentence(of.title, beside_base(out, of_base, counted))}")
