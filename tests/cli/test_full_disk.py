"""A full disk is one line that says where, from every command."""

import errno
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from em_bench import files
from em_bench.errors import UserError
from em_bench.sweep import export_import as transfer
from em_bench.sweep.engine import run_preset as controller
from em_bench.sweep.engine.job import do
from em_bench.sweep.plan import make_plan
from em_bench.sweep.preset import load_preset


@pytest.fixture
def full(monkeypatch):
    """A disk on which nothing can be brought to."""

    def fsync(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["data", "list"], ["models", "--json"]])
def test_what_is_printed(arguments):
    with open("/dev/full", "w") as out:
        ended = subprocess.run([sys.executable, "-m", "em_bench.cli", *arguments], stdout=out, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "em-bench: what is written: the disk is full; make room and give the same command again\n"


def test_the_controller(tmp_path, full):
    with pytest.raises(UserError, match=f"^{tmp_path}: the disk is full; make room and give the same command again$"):
        controller.reproduce(make_plan(load_preset("tiny")), tmp_path)


def test_a_job(tmp_path, full, monkeypatch, capsys):
    from em_bench.sweep.jobs import job_folder, write_order

    plan = make_plan(load_preset("tiny"))
    job = plan.jobs[0]
    job_folder(tmp_path, job).mkdir(parents=True)
    write_order(tmp_path, plan, job)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("em_bench.sweep.engine.job._run", lambda *_: files.write_text(tmp_path / "x", "x"))
    assert do(job.id) == 1
    out = capsys.readouterr()
    assert out.out == f"{tmp_path}: the disk is full; make room and give the same command again\n" and out.err == ""


def test_import_measures_the_disk_that_it_writes_to(tmp_path, monkeypatch, work_of_one):
    archive, asked = tmp_path / "stick" / "runs.zip", []
    archive.parent.mkdir()
    transfer.export([work_of_one], archive)

    def disk_usage(path):
        asked.append(Path(path))
        return namedtuple("usage", "free")(1)

    monkeypatch.setattr(transfer.shutil, "disk_usage", disk_usage)
    with pytest.raises(UserError, match=rf"the disk of {tmp_path / 'work'} has 0.0 GB left; make room"):
        transfer.import_archive(archive, tmp_path / "work")
    assert asked and all(tmp_path / "work" in p.parents for p in asked)


def test_import_onto_a_disk_that_fills_up(tmp_path, monkeypatch, work_of_one):
    transfer.export([work_of_one], tmp_path / "runs.zip")

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(transfer, "_unpack_file", no_room)
    with pytest.raises(UserError, match=f"^{tmp_path / 'work'}: the disk is full"):
        transfer.import_archive(tmp_path / "runs.zip", tmp_path / "work")


@pytest.fixture
def work_of_one(tmp_path):
    """A work folder with one evaluation: what export asks for is that its score is there."""
    folder = tmp_path / "made" / "evaluations" / "one"
    folder.mkdir(parents=True)
    (folder / "score.json").write_text("{}")
    return tmp_path / "made"
