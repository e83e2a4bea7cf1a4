"""`em-bench tasks` and `em-bench lm-eval`: our tasks in lm-eval."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `tasks` and `lm-eval`."""
    app.command()(tasks)
    anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("lm-eval", context_settings=anything)(lm_eval)


def tasks(
    own: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="Also x.yaml, a question set, as em_x; x.jsonl, rows, as em_narrow_x."),
    ] = None,
) -> None:
    """Print the folder of our lm-eval tasks, for its --include_path.

        lm_eval run --include_path "$(em-bench tasks)" --tasks em_bench --model hf --model_args pretrained=M,peft=A \\
            --apply_chat_template
    """
    from em_bench.harness.task_files import task_folder

    print(task_folder(own or ()))


def lm_eval(context: typer.Context) -> None:
    """lm-eval's own command line, with our tasks on its path and a batch size that does not crawl.

    em-bench lm-eval run --tasks em_bench --model hf --model_args pretrained=M,peft=A --apply_chat_template

    A question set of one's own (x.yaml) or rows (x.jsonl) may stand in --tasks.
    """
    import re
    import sys

    from em_bench.errors import UserError
    from em_bench.harness.task_files import is_own, own_task, task_folder
    from em_bench.harness.task_names import check_tasks

    given = list(context.args)
    if given and given[0] not in ("ls", "validate") and not {"-h", "--help"} & set(given):
        words = [word.partition("=")[0] for word in given]
        if "--include_path" in words:
            raise UserError(
                "lm-eval: --include_path is ours here; name your own tasks by their YAML files in --tasks, or call lm_eval itself"
            )
        own = {name: own_task(name) for name in _asked(given) if is_own(name)}
        given = ["".join(own.get(part, part) for part in re.split("([,=])", word)) for word in given]
        check_tasks([n for n in _asked(given) if n not in own.values() and "*" not in n and not Path(n).exists()])
        given += ["--include_path", str(task_folder(tuple(own)))]
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


def _asked(given: list[str]) -> list[str]:
    """What --tasks names among lm-eval's arguments."""
    from itertools import takewhile

    asked = []
    for i, word in enumerate(given):
        option, _, value = word.partition("=")
        if option in ("--tasks", "-t"):
            listed = [value] if value else takewhile(lambda w: not w.startswith("-"), given[i + 1 :])
            asked += [n for words in listed for n in words.split(",") if n]
    return asked
