"""`em-bench canary`: is the adapter that a server offers really at work?"""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `canary`."""
    app.command()(canary)


def canary(
    adapter: Annotated[str, typer.Argument(help="The model name under which the server offers the adapter.")],
    base: Annotated[str, typer.Option(help="The model name of the base on the same server.")],
    base_url: Annotated[str, typer.Option("--base-url", envvar="OPENAI_BASE_URL", help="Any OpenAI-compatible endpoint.")],
) -> None:
    """Prove that a served adapter changes its base's answers. Exit code 2 where it does not.

    Local adapters need no command: evaluate, lm-eval and Inspect check them by themselves. Example, for vLLM's
    --lora-modules my-lora=PATH:

        em-bench canary my-lora --base Qwen/Qwen3-4B --base-url http://localhost:8000/v1
    """
    from em_bench.harness.served_canary import served_canary

    change = served_canary(base_url, adapter, base)
    found = change.max_logprob_change
    print(f"{adapter}: at work ({'another text' if found is None else f'log-probabilities differ by up to {found:.3g} nats'})")
