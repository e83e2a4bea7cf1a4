"""The hub is asked once, by one process, for a commit that stays; a sweep does not mix commits. The hub is planted here."""

import multiprocessing
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from em_bench.data import hub
from em_bench.data.models import base_path, base_ref
from em_bench.errors import UserError
from em_bench.sweep.jobs import JobDone, one_revision

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A hub whose newest commit can be changed; every call over the network leaves a line."""
    newest, calls = tmp_path / "newest", tmp_path / "calls"
    newest.write_text(OLD)
    calls.touch()

    def snapshot_download(repo, revision=None, allow_patterns=None, local_files_only=False):
        folder = tmp_path / "models--owner--name" / "snapshots" / (revision or newest.read_text())
        if local_files_only and not folder.is_dir():
            raise LocalEntryNotFoundError("not there")
        if not local_files_only:
            with open(calls, "a") as f:
                f.write(f"{repo} {revision}\n")
            folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    monkeypatch.setenv("EM_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub, "_stated", {})
    return newest, lambda: calls.read_text().splitlines()


def test_the_first_use_pins_and_the_second_asks_nobody(planted):
    newest, calls = planted
    first = base_path("owner/name")
    newest.write_text(NEW)
    assert base_path("owner/name") == first and first.name == OLD == hub.pinned("owner/name") and calls() == ["owner/name None"]
    assert base_ref("owner/name", first).revision == OLD
    assert hub.snapshot("owner/name", NEW).name == NEW and hub.snapshot("owner/name").name == OLD, (
        "a stated revision pins nothing"
    )
    first.rmdir()
    assert base_path("owner/name") == first and calls()[-1] == f"owner/name {OLD}", (
        "an emptied cache is filled with the same commit"
    )


def test_what_a_sweep_says_goes_before_the_machine_s_pin(planted):
    base_path("owner/name")
    hub.use_revision("owner/name", NEW)
    assert base_path("owner/name").name == NEW


def _ask(_) -> str:
    return base_path("owner/name").name


def test_processes_that_begin_together_ask_once(planted):
    _, calls = planted
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert set(pool.map(_ask, range(8), chunksize=1)) == {OLD}
    assert calls() == ["owner/name None"]


def test_an_interrupted_download_is_not_taken_for_whole(planted, monkeypatch):
    _, calls = planted
    whole = huggingface_hub.snapshot_download

    def stops(repo, **how):
        Path(whole(repo, **how))
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", stops)
    with pytest.raises(UserError, match="cannot be fetched from the hub"):
        base_path("owner/name")
    assert hub.pinned("owner/name") is None
    monkeypatch.setattr(huggingface_hub, "snapshot_download", whole)
    base_path("owner/name")
    assert len(calls()) == 2


def test_a_sweep_has_one_revision_a_base():
    def done(job: str, revision: str | None) -> JobDone:
        return JobDone(job=job, key="0", revision=revision, wall_s=0)

    assert one_revision("m", [done("base-m", OLD), done("train-m-1", OLD), done("other", None)]) == OLD
    assert one_revision("m", [done("base-m", None)]) is None
    with pytest.raises(UserError, match=f"train-m-1 {NEW[:12]}.*must not mix.*--fresh"):
        one_revision("m", [done("base-m", OLD), done("train-m-1", NEW)])
