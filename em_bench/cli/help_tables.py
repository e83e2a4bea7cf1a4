"""Nothing in --help is cut: what is too long for its column is folded. Typer's own tables end such words in an ellipsis."""

from rich.columns import Columns
from rich.table import Table
from rich.text import Text


class _Folded(Table):
    def add_row(self, *cells, **options) -> None:
        super().add_row(*cells, **options)
        for column in self.columns:
            column.overflow, column.no_wrap = "fold", False


class _Prose(Columns):
    """An option's help, its default and whether it is required, as one text."""

    def __rich_console__(self, console, options):
        yield Text(" ", overflow="fold").join(r if isinstance(r, Text) else Text(str(r)) for r in self.renderables)


def fold_tables() -> None:
    """Let Typer draw its help with tables that fold."""
    from typer import rich_utils

    rich_utils.Table, rich_utils.Columns = _Folded, _Prose  # type: ignore[misc]
