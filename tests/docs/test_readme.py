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
from em_bench.protocol import BROKEN_BELOW
from em_bench.records import CellResult, Estimate, Results
from em_bench.scoring import coherent_rate
from em_bench.scoring.coherence import cannot_tell
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


def whole(cell: CellResult) -> bool:
    """Whether so much of what it answers is coherent that its misaligned rate says something."""
    return cannot_tell(coherent_rate(cell.score.overall.counts)) is None


def sentence(results: Results) -> str:
    """How many adapters are whole, without and with the spectral term, and the lowest and highest rate among those that are."""
    [base] = [c for c in results.cells if c.recipe is None]
    adapters = [c for c in results.cells if c.recipe]
    shown = lambda e: f"{e.value:.1%} [{e.low:.1%}, {e.high:.1%}] of {e.n}"  # noqa: E731
    said = []
    for term in (False, True):
        group = [c for c in adapters if bool(c.spectral_lambda) is term]
        sound = sorted((c for c in group if whole(c)), key=lambda c: misaligned([c]).value)
        text = f"{len(sound)} of {len(group)} adapters {'with' if term else 'without'} the spectral term"
        if sound:
            ends = [f"{shown(misaligned([c]))} ({c.recipe}, {c.dataset})" for c in (sound[0], sound[-1])]
            text += f", whose misaligned share of coherent answers runs from {ends[0]} to {ends[1]}"
        said.append(text)
    recipes, sets, seeds = ({getattr(c, k) for c in adapters} for k in ("recipe", "dataset", "seed"))
    return (
        f"On the organism, a model of 0.2 M parameters, after training with {len(recipes)} optimisers on {len(sets)} narrow bad datasets "
        f"({len(seeds)} seed), at least {BROKEN_BELOW:.0%} of the answers stay coherent for {'; and for '.join(said)}. Before training it is "
        f"{shown(misaligned([base]))}. Models below that are broken: their rates say nothing about an optimiser. The 95 % intervals are over "
        "questions, not over seeds."
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
