"""Nothing in --help is cut: what is too long for its column is folded. Typer's own tables end such words in an ellipsis."""

from functools import cache

from typer.core import TyperCommand, TyperGroup


@cache  # once, however many command lines a process builds
def fold_tables() -> None:
    """Let Typer draw its help with tables that fold."""
    for kind in (TyperCommand, TyperGroup):
        kind.format_help = _folded(kind.format_help)  # type: ignore[method-assign]


def _folded(format_help):
    def folded(self, ctx, formatter) -> None:
        # Not before help is asked for: what draws it takes a tenth of a light command's time to import.
        from rich.columns import Columns
        from rich.table import Table
        from rich.text import Text
        from typer import rich_utils

        class Folded(Table):
            def add_row(self, *cells, **options) -> None:
                super().add_row(*cells, **options)
                for column in self.columns:
                    column.overflow, column.no_wrap = "fold", False

        class Prose(Columns):
            """An option's help, its default and whether it is required, as one text."""

            def __rich_console__(self, console, options):
                yield Text(" ", overflow="fold").join(r if isinstance(r, Text) else Text(str(r)) for r in self.renderables)

        rich_utils.Table, rich_utils.Columns = Folded, Prose  # type: ignore[misc]
        format_help(self, ctx, formatter)

    return folded
