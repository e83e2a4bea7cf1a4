"""docs/architecture.md: its picture is that of the imports, and the folders that it and the README name are there, all of them.

`make picture` writes the picture anew."""

import re
from collections import defaultdict
from pathlib import Path

from helpers.imports import LAYERS, PACKAGE, RANK, SOURCES, imports, layer_of, module_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
MERMAID = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)
GROUND = {name for layer in LAYERS[: RANK["organism"]] for name in layer}


def arrows() -> dict[str, set[str]]:
    """layer -> the layers that its modules import, without the ground."""
    found = defaultdict(set)
    for path in SOURCES:
        found[layer_of(module_of(path))] |= {other for n in imports(path) if (other := layer_of(n))}
    return {a: found[a] - GROUND - {a} for layer in LAYERS for a in sorted(layer - GROUND)}


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that others imply."""

    def reach(name: str) -> set[str]:
        return graph[name].union(*map(reach, graph[name]))

    return {a: {b for b in to if not any(b in reach(c) for c in to)} for a, to in graph.items()}


def picture() -> str:
    """The picture as a block of Mermaid: what is imported stands above what imports it."""
    said = lambda name: name.replace(".", "/") + (".py" if (PACKAGE / f"{name}.py").exists() else "/")  # noqa: E731
    ground = "<br>".join("  ".join(f"{n}.py" for n in sorted(layer)) for layer in LAYERS[: RANK["organism"]])
    lines = ["flowchart BT", f'  ground["{ground}"]']
    graph = reduced(arrows())
    lines += [f'  {name}["{said(name)}"]' for name in graph]
    lines += [f"  {a} --> {b}" for a, to in graph.items() for b in sorted(to) or ["ground"]]
    return "\n".join(["```mermaid", *lines, "```\n"]).replace("sweep.engine", "sweep_engine")


def test_the_picture_is_that_of_the_imports():
    assert MERMAID.findall(PAGE.read_text("utf-8")) == [picture()], "the imports have changed: make picture"


def test_arrows_that_others_imply_are_left_out():
    assert reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_both_pages_name_every_folder_and_none_that_is_not_there():
    folders = {f"em_bench/{name.replace('.', '/')}/" for name in RANK if (PACKAGE / name.replace(".", "/")).is_dir()}
    for page in (PAGE, ROOT / "README.md"):
        named = set(re.findall(r"`((?:em_bench|tasks|baselines|leaderboard)/[\w./]*)`", page.read_text("utf-8")))
        missing = {n for n in named if not (ROOT / n).exists()}
        assert not missing, f"{page.name}: {missing}"
        assert folders <= named, f"{page.name} leaves out {folders - named}"


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    PAGE.write_text(MERMAID.sub(lambda _: picture(), text) if MERMAID.search(text) else text + picture(), "utf-8")
