"""A table that can be quoted: raw values, how to show them, and its text as CSV, Markdown and LaTeX."""

import csv
import io

from em_bench.analysis.missing import Missing
from em_bench.records import Estimate, Record

Value = str | int | float | None
NOTHING = "–"
WRAPPED = 40  # characters: longer texts are set in paragraphs in LaTeX
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "²": r"\textsuperscript{2}",
    "λ": r"$\lambda$",
    "η": r"$\eta$",
    "−": "$-$",
    "√": r"$\surd$",
    "’": "'",
    "×": r"$\times$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


class Column(Record):
    """Its head, its name in CSV, and the format of its numbers ('' for text)."""

    head: str
    name: str
    form: str = ""


class Table(Record):
    """Rows of raw values. A table that the runs cannot fill holds the reason instead."""

    id: str
    title: str
    caption: str
    columns: tuple[Column, ...] = ()
    rows: tuple[tuple[Value, ...], ...] = ()
    gap: str | None = None

    def shown(self) -> list[list[str]]:
        """The rows as readers see them."""
        return [[show(v, c.form) for v, c in zip(row, self.columns, strict=True)] for row in self.rows]

    def unread(self, row: int) -> bool:
        """Whether the row has a verdict in a column without a head: its rates are shown, and nothing is said of them."""
        return any(c.name == "verdict" and not c.head and v for v, c in zip(self.rows[row], self.columns, strict=True))


def table(id: str, title: str, caption: str, columns: list[tuple[str, str, str]], rows) -> Table:
    """A table from (head, name, form) columns; `rows` may be a Missing. Headless columns go where they are empty."""
    if isinstance(rows, Missing):
        return Table(id=id, title=title, caption=caption, gap=rows.reason)
    rows = [tuple(r) for r in rows]
    kept = [i for i, (head, _, _) in enumerate(columns) if i == 0 or head or any(r[i] is not None for r in rows)]
    heads = tuple(Column(head=columns[i][0], name=columns[i][1], form=columns[i][2]) for i in kept)
    return Table(id=id, title=title, caption=caption, columns=heads, rows=tuple(tuple(r[i] for i in kept) for r in rows))


def show(value: Value, form: str) -> str:
    """A value as text; what is missing is a dash."""
    if value is None:
        return NOTHING
    return number(value, form) if form and not isinstance(value, str) else str(value)


def number(value: float, form: str) -> str:
    """A number in a format, without a minus before what rounds to zero."""
    text = format(value, form)
    return text if text.strip("+-0.") else format(0 * abs(value), form)


def interval(low: float | None, high: float | None, form: str = ".1f") -> str | None:
    """[low, high], or None without one."""
    return None if low is None or high is None else f"[{number(low, form)}, {number(high, form)}]"


def per_cent(e: Estimate, form: str = ".1f") -> tuple[float | None, str | None]:
    """A share and its interval, in per cent; None where there is none."""
    if e.value is None:
        return None, None
    low, high = (None if end is None else 100 * end for end in (e.low, e.high))
    return 100 * e.value, interval(low, high, form)


def to_csv(t: Table) -> str:
    """Raw values to six significant digits, empty where missing; a gap is a table of one column."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    if t.gap is not None:
        write(["gap"])
        write([t.gap])
        return out.getvalue()
    write([c.name for c in t.columns])
    for row in t.rows:
        write(["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in row])
    return out.getvalue()


def to_markdown(t: Table) -> str:
    """A pipe table under its title, with its caption."""
    if t.gap is not None:
        return f"### {t.title}\n\nNo number: {t.gap}.\n"

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    rule = "|" + "|".join("---:" if c.form else "---" for c in t.columns) + "|"
    body = [line([c.head for c in t.columns]), rule, *map(line, t.shown())]
    return f"### {t.title}\n\n" + "\n".join(body) + f"\n\n{t.caption}\n"


def to_latex(t: Table) -> str:
    """A booktabs table."""
    head = "% needs \\usepackage{array,booktabs}\n\\begin{table}\n"
    head += f"\\caption{{{_latex(t.title)}. {_latex(t.caption)}}}\n\\label{{tab:{t.id}}}\n"
    if t.gap is not None:
        return head + f"No number: {_latex(t.gap)}.\n\\end{{table}}\n"
    lines = [" & ".join(map(_latex, cells)) + r" \\" for cells in ([c.head for c in t.columns], *t.shown())]
    # Long texts wrap, and share what the short columns leave of the line.
    long = [max((len(row[i]) for row in t.shown()), default=0) > WRAPPED for i in range(len(t.columns))]
    share = max(0.98 - 0.07 * long.count(False), 0.3) / max(sum(long), 1)
    wrapped = rf">{{\raggedright\arraybackslash}}p{{{share:.3f}\linewidth}}"
    spec = "".join(wrapped if wide else "r" if c.form else "l" for c, wide in zip(t.columns, long, strict=True))
    body = [
        *([r"\scriptsize\setlength{\tabcolsep}{3pt}"] if any(long) else []),
        f"\\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        lines[0],
        r"\midrule",
        *lines[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return head + "\n".join(body) + "\n\\end{table}\n"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
