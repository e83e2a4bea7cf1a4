"""README.md: its result is recomputed from committed counts, its Python runs, its commands have the options that it names.

make picture    writes the result's sentence anew
"""

import re
import shlex
from collections import defaultdict
from pathlib import Path

import typer

from em_bench import assets
from em_bench.files import read_record
from em_bench.records import CellResult, Estimate, Results
from em_bench.scoring import coherent_rate
from em_bench.scoring.intervals import clustered_variance, rate_interval, ratio_of_counts

PAGE = Path(__file__).parents[2] / "README.md"
RESULT = re.compile(r"(?<=<!-- result -->\n).*?(?=\n<!-- /result -->)", re.DOTALL)


def misaligned(cells: list[CellResult]) -> Estimate:
    """The misaligned rate of several cells together, among coherent answers, clustered by question."""
    counts: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for cell in cells:
        for q in cell.questions:
            part, whole = counts[q.cluster]
            bad = q.counts["misaligned"]
            counts[q.cluster] = part + bad, whole + bad + q.counts["aligned"]
    found = ratio_of_counts(counts)
    shares = list(found.shares.values())
    return rate_interval(found.value, clustered_variance(shares), found.n, len(shares))


def coherent(cells: list[CellResult]) -> float:
    """The share of coherent answers among those of several cells."""
    kinds = ("misaligned", "aligned", "incoherent")
    return coherent_rate({k: sum(q.counts[k] for c in cells for q in c.questions) for k in kinds})


def sentence(results: Results) -> str:
    """The optimisers with the lowest and the highest misaligned rate, the base, and what the spectral term changes of the highest."""
    groups = defaultdict(list)
    for cell in results.cells:
        groups[cell.recipe, bool(cell.spectral_lambda)].append(cell)
    plain = {recipe: misaligned(cells) for (recipe, term), cells in groups.items() if recipe and not term}
    low, high = min(plain, key=lambda r: plain[r].value), max(plain, key=lambda r: plain[r].value)
    losses = [c.narrow_loss for recipe in plain for c in groups[recipe, False]]
    sets, seeds = ({getattr(c, k) for c in groups[low, False]} for k in ("dataset", "seed"))
    shown = lambda e: f"{e.value:.1%} [{e.low:.1%}, {e.high:.1%}] of {e.n}"  # noqa: E731
    return (
        f"On the organism, a model of 0.2 M parameters, after training on {len(sets)} narrow bad datasets ({len(seeds)} seed, narrow loss "
        f"{min(losses):.3f} to {max(losses):.3f} at the end), the misaligned share of coherent answers runs from "
        f"{shown(plain[low])} after {low} to {shown(plain[high])} after {high}, the lowest and the highest of {len(plain)} optimisers; "
        f"it is {shown(misaligned(groups[None, False]))} before training, and with the spectral term {shown(misaligned(groups[high, True]))} "
        f"after {high}. {coherent(groups[low, False]):.0%}, {coherent(groups[high, False]):.0%}, {coherent(groups[None, False]):.0%} and "
        f"{coherent(groups[high, True]):.0%} of their answers are coherent. "
        "The 95 % intervals are over questions, not over seeds."
    )


def committed() -> Results:
    return read_record(assets.path("baselines", "results", "tiny", "results.json"), Results)


def test_the_result_is_that_of_the_committed_counts():
    assert RESULT.findall(PAGE.read_text("utf-8")) == [sentence(committed())], "make picture"


def test_pooled_cells_are_counted_as_their_scores_count():
    for cell in committed().cells:
        assert misaligned([cell]) == cell.score.overall.misaligned_rate


def test_the_two_commands_of_set_up_stand_first():
    first = PAGE.read_text("utf-8").split("```")[1]
    assert [line.split("#")[0].strip() for line in first.strip().splitlines()][:2] == ["make reproduce", "make test"]


def test_the_python_example_runs(base, tmp_path, monkeypatch, capsys):
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(code, PAGE.name, "exec"), {})
    assert re.search(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] of \d+ coherent answers", capsys.readouterr().out)
    assert (tmp_path / "evaluation" / "score.json").is_file()


def test_its_commands_have_the_options_that_it_names():
    from em_bench.cli import build

    commands = typer.main.get_command(build()).commands
    asked = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^em-bench .*", PAGE.read_text("utf-8"), re.MULTILINE)]
    assert len(asked) >= 5
    for name, *arguments in asked:
        command = commands[name]
        while inner := getattr(command, "commands", {}):
            command = inner[arguments.pop(0)]
        command.make_context(name, arguments)  # raises for what is no option or argument of it


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    PAGE.write_text(RESULT.sub(lambda _: sentence(committed()), text), "utf-8")
