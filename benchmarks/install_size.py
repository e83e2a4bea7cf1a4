"""Megabytes on the disk of a plain install and of what each extra adds, as installed here: python benchmarks/install_size.py [--write]

--write puts the table into docs/install.md. Sizes are of the files that the distributions list; those of torch are its CPU build's.
"""

import argparse
import re
import sys
from importlib.metadata import distribution
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.extras import PROJECT, closure

ROOT = Path(__file__).parents[1]
ADDS = {
    "": "evaluate (answers by the grammar or a judge of your own, margin), score, agree, spectrum, rescale, verify, models, data",
    "train": "recipes of pytorch_optimizer, and the training sets that lie in a protected archive",
    "judge": "`--judge openai:MODEL`, `--server`: models behind an endpoint",
    "inspect": "`--harness inspect`, and the tasks in Inspect",
    "board": "reports, figures, the leaderboard",
    "reproduce": "reproduce, submit run: the sweep engine; `train` and `board` with it",
    "pocket": "models from packages of the Python registry",
}
BEGIN, END = "<!-- sizes -->\n", "<!-- /sizes -->"


def megabytes(names: set[str]) -> float:
    """Of what is installed of them."""
    files = (f for n in names for f in distribution(n).files or ())
    return sum(p.stat().st_size for f in files if (p := Path(str(f.locate()))).is_file()) / 1e6


def table() -> str:
    """In Markdown."""
    core = closure(PROJECT["dependencies"])
    rows = [("`em-bench`", megabytes(core), len(core), ADDS[""])]
    for extra in list(ADDS)[1:]:
        more = closure([f"em-bench[{extra}]"]) - core
        rows.append((f"`em-bench[{extra}]`", megabytes(more), len(more), ADDS[extra]))
    lines = [
        f"| {name} | {'' if i == 0 else '+'}{size:,.0f} MB, {n} packages | {what} |"
        for i, (name, size, n, what) in enumerate(rows)
    ]
    return "\n".join(["| install | on the disk | for |", "|---|---|---|", *lines, ""])


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    made = table()
    if not parser.parse_args().write:
        print(made)
        return
    page = ROOT / "docs" / "install.md"
    page.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: BEGIN + made + END, page.read_text("utf-8"), flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()
