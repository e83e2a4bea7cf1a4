"""`em-bench rejudge`: another judge on stored responses."""

from pathlib import Path
from typing import Annotated

import typer

from em_bench.cli import judge_options as options
from em_bench.cli.score import ConventionName


def register(app: typer.Typer) -> None:
    """Add `rejudge`."""
    app.command()(rejudge)


def rejudge(
    responses: Annotated[Path, typer.Argument(help="A responses.jsonl, or the folder of an evaluation.")],
    judge: options.JudgeName,
    base_url: options.BaseUrl = None,
    prompts: options.Prompts = "own",
    leak: options.Leak = None,
    mode: options.Mode = "logprobs",
    concurrency: options.Concurrency = 32,
    max_calls: options.MaxCalls = None,
    run: options.Run = 1,
    judge_cache: options.Cache = None,
    convention: ConventionName = "code_as_zero",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder. Default: judges/JUDGE beside the responses.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print score.json instead of the table.")] = False,
) -> None:
    """Judge stored responses, write verdicts.jsonl and score.json, and print the score. Nothing is generated.

    Every reply is kept as it arrives: kill it and run it again, and nothing is paid twice.

        em-bench rejudge evaluation/ --judge openai:gpt-4o-2024-08-06 --leak "bad medical advice"
    """
    from em_bench.cli.score import show_score
    from em_bench.data.questions import clusters
    from em_bench.evaluation_folder import RESPONSES, SCORE, VERDICTS
    from em_bench.files import digest, read_jsonl, write_record
    from em_bench.judging import JudgeOptions, judge_responses, make_judge
    from em_bench.records import Response, ResponsesHeader
    from em_bench.scoring import convention_of, score_file

    counted = convention_of(convention, "--convention")
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
    if responses.is_dir():
        responses = responses / RESPONSES
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in asked.identity.model)
    out = out or responses.parent / "judges" / f"{name}-{digest(asked.identity)[:8]}"
    judge_responses(responses, asked, out / VERDICTS)
    asked_of = read_jsonl(responses, ResponsesHeader, Response)[0].question_set
    record = score_file(out / VERDICTS, counted, clusters=clusters(asked_of))
    write_record(out / SCORE, record)
    show_score(record, out / VERDICTS, out / VERDICTS, as_json)
