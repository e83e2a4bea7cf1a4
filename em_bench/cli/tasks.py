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

    from lm_eval.__main__ import cli_evaluate

    from em_bench import assets
    from em_bench.errors import UserError

    given, ours = list(context.args), str(assets.path("tasks", "lm_eval"))
    if given and given[0] not in ("ls", "validate") and not {"-h", "--help"} & set(given):
        words = [word.partition("=")[0] for word in given]
        if "--include_path" in words:
            raise UserError(
                "lm-eval: --include_path is ours here; name your own tasks by their YAML files in --tasks, or call lm_eval itself"
            )
        given += ["--include_path", ours]
        if not {"--batch_size", "-b"} & set(words):
            given += ["--batch_size", "64"]  # lm-eval's default of 1 is about 24 times slower
    sys.argv = ["em-bench lm-eval", *given]
    cli_evaluate()
