"""The command line: one thin command a stage. stdout is the result, stderr the progress."""

import importlib
import os
import shlex
import sys
import warnings
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from em_bench import __version__
from em_bench.cli.extras import missing_extra
from em_bench.cli.help_tables import fold_tables
from em_bench.errors import UserError
from em_bench.files import disk_full

# What --help shows in one panel. Each module adds its own commands with `register(app)` and imports heavy libraries only inside them.
PANELS = {
    "Measure a checkpoint": ("evaluate", "spectrum", "rescale", "canary", "agree_engines", "tasks"),
    "Judge, score, check": ("rejudge", "judge", "score", "agree", "verify"),
    "Fine-tune": ("train", "runs"),
    "Reproduce a sweep": ("doctor", "reproduce", "plan", "status", "report", "export_import"),
    "Enter the leaderboard": ("submit", "leaderboard"),
    "Publish": ("hub",),
    "Models and data": ("models", "data", "organism"),
}
ALONE = {name for modules in PANELS.values() for name in modules}


class _Commands(TyperGroup):
    """Ctrl-C is said in one line, with what goes on."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _stop()


def build(only: str | None = None) -> typer.Typer:
    """The Typer application with every command; where a module here is named as the command `only`, with that alone, which starts sooner."""
    app = typer.Typer(
        name="em-bench",
        cls=_Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="How much emergent misalignment does an optimiser, or a checkpoint, buy at the same training loss?",
    )
    app.callback()(_options)
    for panel, modules in PANELS.items():
        commands, groups = len(app.registered_commands), len(app.registered_groups)
        for name in modules if only not in ALONE else {only} & set(modules):
            importlib.import_module(f"em_bench.cli.{name}").register(app)
        for command in app.registered_commands[commands:]:
            command.rich_help_panel = panel
        for group in app.registered_groups[groups:]:
            group.rich_help_panel = panel
    fold_tables()
    return app


def _version(asked: bool) -> None:
    if asked:
        print(f"em-bench {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")] = False,
) -> None: ...


def _stop() -> NoReturn:
    again = shlex.join(["em-bench", *sys.argv[1:]])
    print(f"em-bench: stopped; what is done is kept, the same command goes on: {again}", file=sys.stderr)
    sys.exit(130)


def main() -> None:
    """Entry point: a UserError becomes one line and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # transformers renames these, and PEFT asks for the old ones: nobody who reads it can do anything about it.
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing", FutureWarning)
    try:
        try:
            build(sys.argv[1] if len(sys.argv) > 1 else None)()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        _stop()
    except UserError as e:
        print(f"em-bench: {e}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as e:
        if (missing := missing_extra(e)) is None:
            raise
        print(f"em-bench: {missing}", file=sys.stderr)
        sys.exit(2)
    except OSError as e:
        if (full := disk_full(e)) is None:
            raise
        print(f"em-bench: {full}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer of stdout would be written at the end
        sys.exit(2)
