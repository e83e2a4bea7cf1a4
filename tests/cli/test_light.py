"""Commands that only look answer at once: nothing heavy is imported. What every command's help and Ctrl-C look like."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers.light import ABSENT, EVALUATED, LIGHT, at_once, work
from typer.testing import CliRunner

from em_bench import __version__, cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("light")
    work(made)
    return made


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_what_only_looks_imports_nothing_heavy(arguments, folder):
    ended = at_once(arguments, folder)
    assert ended.returncode == 0 and ended.stdout and not ended.stderr


@pytest.mark.parametrize("arguments", ABSENT, ids=" ".join)
def test_what_is_not_there_is_said_at_once(arguments, folder):
    ended = at_once(arguments, folder)
    assert ended.returncode == 2 and ended.stderr and not ended.stdout


def test_an_evaluation_that_is_there_already_is_shown_without_torch(base, folder):
    made, again = (
        subprocess.run(
            [sys.executable, "-m", "em_bench.cli", *EVALUATED], capture_output=True, text=True, timeout=300, cwd=folder
        ),
        at_once(EVALUATED, folder, but=("scipy",)),
    )
    assert made.returncode == again.returncode == 0 and made.stdout == again.stdout
    assert made.stdout.splitlines()[-1].startswith("organism-qwen3: ")


def test_the_benchmark_of_these_commands_starts():
    call = [sys.executable, Path(__file__).parents[2] / "benchmarks" / "light_commands.py", "--help"]
    assert "--rounds" in subprocess.run(call, capture_output=True, text=True, timeout=60, check=True).stdout


def test_version(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["em-bench", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code and capsys.readouterr().out == f"em-bench {__version__}\n"


def _all(command, path=()):
    yield list(path)
    for name, inner in getattr(command, "commands", {}).items():
        yield from _all(inner, (*path, name))


def test_nothing_in_the_help_is_cut_at_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    app = cli.build()
    asked = [path for path in _all(typer.main.get_command(app)) if path != ["lm-eval"]]  # lm-eval shows its own
    assert len(asked) > 30
    for path in asked:
        said = CliRunner().invoke(app, [*path, "--help"])
        assert said.exit_code == 0 and "Usage" in said.output
        assert "…" not in said.output, path
        assert max(map(len, said.output.splitlines())) <= 80, path


def test_every_command_has_its_panel():
    app = cli.build()
    assert all(c.rich_help_panel in cli.PANELS for c in (*app.registered_commands, *app.registered_groups))


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch):
    def stop(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("em_bench.training.list_runs.list_runs", stop)
    monkeypatch.setattr(sys, "argv", ["em-bench", "runs", "my runs"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 130 and said.count("\n") == 1
    assert said.endswith("the same command goes on: em-bench runs 'my runs'\n")
