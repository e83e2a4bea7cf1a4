"""Collects and makes the pages of the documentation site: python docs/site/pages.py OUT [--without-boards]

What people wrote is taken as it stands, at its own path; links to files that are no pages lead to the repository where REPO_URL
names one, and are plain text otherwise. The command line's reference is made from the commands, that of Python names the modules
whose docstrings mkdocstrings reads, and the boards and reports are those that em-bench makes.
"""

import argparse
import gzip
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import typer
import yaml

from em_bench import cli
from em_bench.analysis.preset_page import write_page
from em_bench.analysis.report import write_report
from em_bench.analysis.runs import load_runs
from em_bench.board.benchmark import CURRENT
from em_bench.board.board import Folders, read_board
from em_bench.board.publish import publish
from em_bench.files import parse_record
from em_bench.records import Results

ROOT = Path(__file__).parents[2]
INDEX = "README.md"
# The Python API: what somebody imports who does not read the code.
MODULES = (
    "em_bench.api", "em_bench.harness.evaluate", "em_bench.harness.margin", "em_bench.judging.make", "em_bench.judging.judge", "em_bench.spectral",
    "em_bench.optim.build", "em_bench.training.run", "em_bench.data.questions", "em_bench.data.training_sets", "em_bench.scoring.metrics",
    "em_bench.scoring.matched_loss", "em_bench.verify.chain", "em_bench.run_folder", "em_bench.evaluation_folder", "em_bench.records.training",
    "em_bench.records.evaluation", "em_bench.records.margin", "em_bench.errors",
)  # fmt: skip
CONTEXT = typer.Context(typer.main.get_command(cli.build()))
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
HTML = re.compile(r"\b(src|srcset|href)=\"([^\"#:]+)\"")
NODE = re.compile(r"^  (\w+)\[\"(.+)\"\]$", re.MULTILINE)
ARROW = re.compile(r"^  (\w+) --> (\w+)$", re.MULTILINE)


def written() -> list[str]:
    """The Markdown pages of the navigation that lie in the repository."""

    def leaves(part) -> Iterator[str]:
        if isinstance(part, str):
            yield part
        else:
            for inner in part.values() if isinstance(part, dict) else part:
                yield from leaves(inner)

    text = (ROOT / "docs" / "site" / "mkdocs.yml").read_text("utf-8").replace("!ENV", "")
    listed = list(leaves(yaml.safe_load(text)["nav"]))
    return [INDEX, *(p for p in listed if (ROOT / p).is_file())]


def page_of(path: str) -> str:
    """Where a page of the repository stands on the site."""
    return "index.md" if path == INDEX else path


def collected(path: str, pages: set[str], out: Path) -> str:
    """A page's text with its links made the site's; pictures are copied to `out`."""
    here = (ROOT / path).parent

    def target(link: str) -> str | None:
        to = (here / link).resolve()
        inside = to.relative_to(ROOT).as_posix() if to.is_relative_to(ROOT) else ""
        if inside in pages:
            return os.path.relpath(page_of(inside), Path(page_of(path)).parent)
        if to.is_file() and to.suffix in (".svg", ".png"):
            (out / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(to, out / inside)
            return os.path.relpath(inside, Path(page_of(path)).parent)
        repository = os.environ.get("REPO_URL")
        return f"{repository}/blob/main/{inside}" if repository and to.exists() else None

    def link(found: re.Match[str]) -> str:
        picture, text, to, anchor = found[1], found[2], found[3], found[4] or ""
        if not to or "://" in to or to.startswith("mailto:"):
            return found[0]
        at = target(to)
        return text if at is None else f"{picture}[{text}]({at}{anchor})"

    def attribute(found: re.Match[str]) -> str:
        at = target(found[2])
        return found[0] if at is None else f'{found[1]}="{at}"'

    text = (ROOT / path).read_text("utf-8")
    return re.sub(r"```mermaid\n(.*?)```\n", floors, HTML.sub(attribute, LINK.sub(link, text)), flags=re.DOTALL)


def floors(found: re.Match[str]) -> str:
    """A flow chart as a table of what stands on what: read without a picture, and without a script of others."""
    names = {node: label.replace("<br>", " ") for node, label in NODE.findall(found[1])}
    stands = {node: [names[b] for a, b in ARROW.findall(found[1]) if a == node] for node in names}
    rows = [f"| {names[n]} | {', '.join(below) or 'nothing'} |" for n, below in stands.items()]
    return "\n".join(["| part | stands on |", "|---|---|", *rows, ""])


def command_line() -> str:
    """Every command with its help, its arguments and its options, from the commands themselves."""
    lines = ["# Command line", "", "Made from the commands; `em-bench COMMAND --help` says the same.", ""]
    for names, command in commands(typer.main.get_command(cli.build()), ("em-bench",)):
        lines += [f"{'#' * min(len(names), 3)} {' '.join(names)}", "", *_help(command.help or ""), ""]
        rows = [_row(p) for p in command.params if getattr(p, "name", "") != "help" and not getattr(p, "hidden", False)]
        if rows:
            lines += ["| argument or option | default | |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def commands(command, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    """(its words, the command) of all below and of the groups, in the order of --help."""
    if len(names) > 1:
        yield names, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*names, name))


def _help(text: str) -> list[str]:
    """Its paragraphs; indented lines stay what they are, code."""
    return [line.rstrip() for line in text.expandtabs(4).splitlines()]


def _row(param) -> str:
    option = param.param_type_name == "option"
    names = ", ".join(param.opts + param.secondary_opts) if option else (param.metavar or param.name).upper()
    wants = (
        ""
        if getattr(param, "is_flag", False)
        else f" {param.metavar or param.display_type(CONTEXT).strip('<>')}"
        if option
        else ""
    )
    default = "" if param.default in (None, False, ()) or callable(param.default) else f"`{param.default}`"
    said = (param.help or "").replace("|", "\\|").replace("\n", " ")
    return f"| `{names}{wants}` | {'required' if param.required else default} | {said} |"


def python_api() -> str:
    """What mkdocstrings fills in."""
    head = "# Python\n\nMade from the docstrings: shapes, units, errors raised, sources of formulas.\n"
    return head + "".join(
        f"\n## {m.removeprefix('em_bench.')}\n\n::: {m}\n    options: {{show_root_heading: false}}\n" for m in MODULES
    )


def boards(out: Path) -> str:
    """Make the board, and the pages of every preset whose results are here, below `out`, and a page that leads to them."""
    os.environ["EM_BENCH_SITE"] = str(out.resolve())  # where the pages' links lead
    lines = ["# Boards and reports", "", "As `em-bench` makes them; each opens by itself, also without a network.", ""]
    folders = Folders.at(ROOT / "leaderboard")
    publish(read_board(folders, CURRENT, "organism"), folders, out / "board" / "board.json", out / "board")
    lines += ["- [The leaderboard](board/index.html)"]
    for packed in sorted((ROOT / "baselines" / "results").glob("*/results.json.gz")):
        name, to = packed.parent.name, out / "reports" / packed.parent.name
        results = parse_record(gzip.decompress(packed.read_bytes()).decode(), Results, str(packed))
        write_page(results, to)
        line = f"- [The preset {name}](reports/{name}/index.html)"
        if not results.margins:
            write_report(load_runs([packed]), to)
            line += f", and [beside the paper](reports/{name}/report.html)"
        lines.append(line)
    return "\n".join([*lines, ""])


def main() -> None:
    """Fill OUT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without-boards", action="store_true", help="leave out the boards and reports, which take a minute")
    asked = parser.parse_args()
    shutil.rmtree(asked.out, ignore_errors=True)
    shutil.copytree(Path(__file__).with_name("assets"), asked.out / "assets")
    pages = written()
    made = {page_of(p): collected(p, set(pages), asked.out) for p in pages}
    made |= {"reference/cli.md": command_line(), "reference/api.md": python_api()}
    made["results.md"] = (
        "# Boards and reports\n\nLeft out of this build.\n" if asked.without_boards else boards(asked.out.resolve())
    )
    for path, text in made.items():
        (asked.out / path).parent.mkdir(parents=True, exist_ok=True)
        (asked.out / path).write_text(text, "utf-8")
    print(f"{asked.out}: {len(made)} pages")


if __name__ == "__main__":
    main()
