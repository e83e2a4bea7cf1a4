"""The command line: one thin command a stage. stdout is the result, stderr the progress."""

import importlib
import os
import sys

import typer

from em_bench.errors import UserError
from em_bench.files import disk_full

# Each module adds its own commands with `register(app)` and imports heavy libraries only inside them.
MODULES = (
    "reproduce",
    "plan",
    "status",
    "export_import",
    "organism",
    "data",
    "models",
    "train",
    "runs",
    "evaluate",
    "rescale",
    "canary",
    "tasks",
    "spectrum",
    "verify",
    "report",
    "rejudge",
    "score",
    "agree",
    "submit",
    "leaderboard",
)


def build() -> typer.Typer:
    """The Typer application with every command."""
    app = typer.Typer(
        name="em-bench",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="How much emergent misalignment does an optimiser, or a checkpoint, buy at the same training loss?",
    )
    for name in MODULES:
        importlib.import_module(f"em_bench.cli.{name}").register(app)
    return app


def main() -> None:
    """Entry point: a UserError becomes one line and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        try:
            build()()
        finally:
            sys.stdout.flush()
    except UserError as e:
        print(f"em-bench: {e}", file=sys.stderr)
        sys.exit(2)
    except OSError as e:
        if (full := disk_full(e)) is None:
            raise
        print(f"em-bench: {full}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer of stdout would be written at the end
        sys.exit(2)
