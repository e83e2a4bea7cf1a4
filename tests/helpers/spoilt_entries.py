"""To spoil an entry of a board, and to see what its checks say."""

import json
from datetime import UTC, datetime
from pathlib import Path

from em_bench.board.verify import verify_entry
from helpers.packing import tree_of


def failed(folders, name="adamw") -> dict[str, str]:
    """check id -> detail of what fails; every detail is one printable line."""
    found = verify_entry(folders.submissions / name, folders.benchmarks, datetime(2026, 12, 1, tzinfo=UTC))
    out = {c.id: c.detail for c in found.checks if not c.passed}
    for detail in out.values():
        assert detail and "\n" not in detail and len(detail) < 500
    return out


def snapshot(folder: Path) -> set[tuple]:
    return {(p, p.lstat().st_mtime_ns, p.lstat().st_size) for p in folder.rglob("*")}


def edit(path: Path, change) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def lines(path: Path, number: int, change) -> None:
    """Change one line of a JSON lines file."""
    all_lines = path.read_text().split("\n")
    value = json.loads(all_lines[number])
    change(value)
    all_lines[number] = json.dumps(value)
    path.write_text("\n".join(all_lines))


def results(folders, name="adamw") -> Path:
    return folders.submissions / name / "results"


def tree(folders, name="adamw") -> Path:
    """Its runs and evaluations, which `synthetic_entries.reseal` packs again."""
    return tree_of(folders.submissions / name)


def evaluation(folders, name="adamw", kind="end") -> Path:
    return sorted((tree(folders, name) / "evaluations").glob(f"*.{kind}"))[0]


def run(folders, name="adamw") -> Path:
    """The run of the first cell."""
    manifest = json.loads((results(folders, name) / "manifest.json").read_text())
    return tree(folders, name) / "runs" / manifest["cells"][0]["run_id"]
