"""README.md: its result is what the committed results say, its Python runs, its commands have the options that it names.

make picture    writes the result's sentence anew
"""

import re
import shlex
from pathlib import Path

import pytest
import typer
from helpers.committed import committed

from em_bench.analysis.controls import beyond_a_smaller_update, gains
from em_bench.analysis.margin_rows import margin_rows, shift
from em_bench.analysis.summary import arm_of, matched
from em_bench.data.questions import load
from em_bench.records import CellResult, Estimate, Results

PAGE = Path(__file__).parents[2] / "README.md"
RESULT = re.compile(r"(?<=<!-- result -->\n).*?(?=\n<!-- /result -->)", re.DOTALL)


def shown(e: Estimate) -> str:
    return f"{e.value:.1%} [{e.low:.1%}, {e.high:.1%}]"


def sentence() -> str:
    """What the pages of `tiny` and `pocket` say, in a paragraph."""
    tiny, pocket = committed("tiny"), committed("pocket")
    tuned = [c for c in tiny.cells if c.recipe]
    recipes, sets, seeds = (
        {getattr(c, k) for c in tuned if c.spectral_lambda == 0 and not arm_of(c)[-1]} for k in ("recipe", "dataset", "seed")
    )
    said = []
    for rows in matched(tiny):
        plain = sorted(
            (r for r in rows if r.spectral_lambda == 0 and r.verdict is None), key=lambda r: r.misaligned_of_asked.value
        )
        ends = [f"{shown(r.misaligned_of_asked)} ({r.recipe})" for r in (plain[0], plain[-1])] if plain else []
        said.append(
            f"at a {rows[0].at} from {ends[0]} to {ends[1]}, {len(plain)} of {len(recipes)} optimisers"
            if ends
            else f"at a {rows[0].at} no number"
        )
    return (
        f"On the organism (0.2 M parameters, {len(recipes)} optimisers, {len(sets)} narrow bad datasets, {len(seeds)} seeds) the share of misaligned answers of all asked runs "
        f"{'; '.join(said)}. {beyond_a_smaller_update(gains(tiny))} On SmolLM2-135M, a real language model, {one_seed(pocket)}"
    )


def one_seed(pocket: Results) -> str:
    rows = margin_rows(pocket)
    found = next(r.beyond_control for r in rows if r.recipe == "adamw" and r.spectral_lambda == 0 and r.beyond_control)
    plain = [r.at_end for r in rows if r.at_end and r.dataset == "home_safety_bad" and not r.spectral_lambda]
    ends, apart = [e.value for e in plain], sum(e.low > 0 or e.high < 0 for e in plain)
    return (
        f"bad household advice less good advice (AdamW, one seed) shifts the margin of misaligned over aligned answers by {shift(found)} nats a byte; "
        f"between five optimisers the shifts differ by {max(ends) - min(ends):.3f}, {apart or 'none'} of {len(plain)} intervals apart from 0."
    )


def test_the_result_is_that_of_the_committed_results():
    assert RESULT.findall(PAGE.read_text("utf-8")) == [sentence()], "make picture"


def test_rates_at_a_loss_are_those_of_the_counts_beside_it():
    """One recipe, by hand: of each run the shares on both sides of the crossing, weighted, and their mean."""
    results = committed("tiny")
    for i, rows in enumerate(matched(results)):
        row = next((r for r in rows if r.recipe == "adamw" and r.spectral_lambda == 0 and r.missed is None), None)
        if row is None:
            continue
        shares = []
        for cell in (c for c in results.cells if arm_of(c) == arm_of_row(results, row)):
            target = results.targets[f"{cell.model}/{cell.dataset}"][i]
            asked = {c.step: c for c in results.checkpoints if c.run_id == cell.run_id} | {cell.steps: cell}
            losses = [(p.step, p.narrow_loss) for p in cell.trajectory]
            after = next(n for n, (_, loss) in enumerate(losses) if loss <= target)
            (s0, l0), (s1, l1) = losses[after - 1], losses[after]
            w = (l0 - target) / (l0 - l1)
            shares.append((1 - w) * misaligned(asked[s0]) + w * misaligned(asked[s1]))
        assert row.misaligned_of_asked.value == pytest.approx(sum(shares) / len(shares), rel=1e-9)


def misaligned(cell: CellResult) -> float:
    """Of all asked."""
    counts = cell.score.overall.counts
    return counts["misaligned"] / sum(counts.values())


def arm_of_row(results: Results, row) -> tuple:
    return next(
        arm_of(c)
        for c in results.cells
        if (c.recipe, c.spectral_lambda) == (row.recipe, row.spectral_lambda) and not arm_of(c)[-1]
    )


def test_the_two_commands_of_set_up_stand_first():
    first = PAGE.read_text("utf-8").split("```")[1]
    assert [line.split("#")[0].strip() for line in first.strip().splitlines()][:2] == ["make reproduce", "make test"]


def test_the_python_example_runs(base, tmp_path, monkeypatch, capsys):
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(code, PAGE.name, "exec"), {})
    said = capsys.readouterr().out
    asked = len(load("organism"))
    assert re.match(rf"organism-qwen3: \d+\.\d% \[\d+\.\d%, \d+\.\d%\] of {asked} answers asked for are misaligned\.\n", said)
    assert len(re.findall(r"^-?\d\.\d+(?:e-\d+)?$", said, re.MULTILINE)) == 2, "a flatness gap and a shift"


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
    PAGE.write_text(RESULT.sub(lambda _: sentence(), text), "utf-8")
