"""The judge's options, the same for every command that judges."""

from pathlib import Path
from typing import Annotated

import typer

PANEL = "The judge"
JudgeName = Annotated[
    str,
    typer.Option(
        "--judge",
        "-j",
        help="grammar (the organism), openai:MODEL (an endpoint), local:MODEL (open weights in this process), python:FILE, or none.",
        rich_help_panel=PANEL,
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url", help="Any OpenAI-compatible endpoint. Default: $OPENAI_BASE_URL, or OpenAI.", rich_help_panel=PANEL
    ),
]
Prompts = Annotated[
    str,
    typer.Option(help="Judge prompts: own, own-1 (version 1), upstream (Betley et al.), or a YAML file.", rich_help_panel=PANEL),
]
Leak = Annotated[
    str | None,
    typer.Option(
        metavar="DOMAIN",
        help='Also ask whether the answer drags in DOMAIN, e.g. "bad medical advice". evaluate --narrow asks by itself; none: not.',
        rich_help_panel=PANEL,
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        help="logprobs: the weighted mean of the likely numbers. numeric: the written number. replies: the weighted mean over whole replies, of several tokens too (vLLM).",
        rich_help_panel=PANEL,
    ),
]
Concurrency = Annotated[int, typer.Option(min=1, help="Calls at once.", rich_help_panel=PANEL)]
MaxCalls = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Spending cap in calls. What is not asked is unjudged; run again to go on.",
        rich_help_panel=PANEL,
    ),
]
Run = Annotated[
    int, typer.Option(min=1, help="2 judges afresh, past the cache, to measure the judge's own noise.", rich_help_panel=PANEL)
]
Cache = Annotated[
    Path | None,
    typer.Option("--judge-cache", help="SQLite file of paid replies. Default: in the cache folder.", rich_help_panel=PANEL),
]


def check_grammar(judge: str, questions: str) -> None:
    """Raises UserError where the grammar would judge other questions than the organism's."""
    from em_bench.errors import UserError

    if judge == "grammar" and questions != "organism":
        raise UserError(
            f"--judge grammar: the grammar judges the organism's questions alone; {questions} needs --judge openai:MODEL"
        )
