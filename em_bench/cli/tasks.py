"""`em-bench tasks` and `em-bench lm-eval`: our tasks in lm-eval."""

import typer


def register(app: typer.Typer) -> None:
    """Add `tasks` and `lm-eval`."""
    app.command()(tasks)
    anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("lm-eval", context_settings=anything)(lm_eval)


def tasks() -> None:
    """Print the folder of our lm-eval tasks, for its --include_path.

        lm_eval run --include_path "$(em-bench tasks)" --tasks em_bench --model hf --model_args pretrained=M,peft=A \\
            --apply_chat_template
    """
    from em_bench import assets

    print(assets.path("tasks", "lm_eval"))


def lm_eval(context: typer.Context) -> None:
    """lm-eval's own command line, with our tasks on its path and a batch size that does not crawl.

    em-bench lm-eval run --tasks em_bench --model hf --model_args pretrained=M,peft=A --apply_chat_template
    """
    import sys

    from em_bench import assets
    from em_bench.errors import UserError
    from em_bench.harness.task_names import check_tasks

    given = list(context.args)
    if given and given[0] not in ("ls", "validate") and not {"-h", "--help"} & set(given):
        words = [word.partition("=")[0] for word in given]
        if "--include_path" in words:
            raise UserError(
                "lm-eval: --include_path is ours here; name your own tasks by their YAML files in --tasks, or call lm_eval itself"
            )
        check_tasks(_named(given))
        given += ["--include_path", str(assets.path("tasks", "lm_eval"))]
        if not {"--batch_size", "-b"} & set(words):
            given += ["--batch_size", "64"]  # lm-eval's default of 1 is about 24 times slower
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["em-bench lm-eval", *given]
    try:
        cli_evaluate()
    except ValueError as e:
        if not str(e).startswith("Tasks not found"):
            raise
        raise UserError(f"lm-eval: --tasks: {e}; `em-bench lm-eval ls tasks` lists them") from None


def _named(given: list[str]) -> list[str]:
    """The names of tasks among lm-eval's arguments; not patterns, files and folders."""
    from itertools import takewhile
    from pathlib import Path

    named = []
    for i, word in enumerate(given):
        option, _, value = word.partition("=")
        if option in ("--tasks", "-t"):
            listed = [value] if value else takewhile(lambda w: not w.startswith("-"), given[i + 1 :])
            named += [n for words in listed for n in words.split(",")]
    return [n for n in named if n and not n.endswith((".yaml", ".yml")) and "*" not in n and not Path(n).exists()]
