"""Which command Snakemake asks for the states of SLURM jobs: sacct only where it answers, however a cluster without accounting fails."""

import subprocess

import pytest

from em_bench.sweep.engine import slurm


@pytest.mark.parametrize(
    ("sacct", "asked"),
    [
        ("exit 0", "sacct"),
        ("echo Slurm accounting storage is disabled >&2; exit 1", "squeue"),
        (None, "squeue"),
    ],
)
def test_sacct_is_asked_where_it_answers(tmp_path, monkeypatch, sacct, asked):
    if sacct:
        (tmp_path / "sacct").write_text(f"#!/bin/sh\n{sacct}\n")
        (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    given = slurm.arguments(tmp_path)
    assert given[given.index("--slurm-status-command") + 1] == asked
    assert given[given.index("--slurm-jobname-prefix") + 1] == slurm.prefix(tmp_path)


def test_a_sacct_that_hangs_is_not_asked(tmp_path, monkeypatch):
    def hang(command, **options):
        assert options["timeout"]
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    assert "squeue" in slurm.arguments(tmp_path)
