"""An entry in a process of its own: what breaks its limits fails alone, and says why."""

import os
import signal
import time

import pytest

from em_bench.board import board as boards
from em_bench.board.board import read_board
from em_bench.board.contained import Killed, Limits, contained
from em_bench.errors import UserError

SMALL = Limits(memory=200 << 20, seconds=1, clock=60, files=64)


def eat() -> int:
    return len(bytearray(600 << 20))


def spin() -> None:
    while True:
        pass


def sleep() -> None:
    time.sleep(60)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write(path: str) -> None:
    with open(path, "w") as f:
        f.write("owned")


def open_many() -> None:
    kept = [open("/dev/null") for _ in range(500)]
    assert kept


def refuse() -> None:
    raise UserError("no")


def call() -> bool:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=1):
        return True


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (eat, "more than 200 MiB of memory"),
        (spin, "more than 1 s of the processor"),
        (die, "SIGKILL"),
        (open_many, "OSError"),
    ],
)
def test_a_process_that_breaks_its_limits_says_why(work, why):
    with pytest.raises(Killed, match=why):
        contained(work, limits=SMALL)


def test_a_process_that_waits_for_ever():
    before = time.monotonic()
    with pytest.raises(Killed, match="not done after"):
        contained(sleep, limits=SMALL._replace(clock=0.5))
    assert time.monotonic() - before < 10


def test_nothing_is_written_and_nobody_called(tmp_path):
    with pytest.raises(Killed, match="OSError"):
        contained(write, str(tmp_path / "x"), limits=SMALL)
    assert (tmp_path / "x").stat().st_size == 0 if (tmp_path / "x").exists() else True
    with pytest.raises(UserError, match="no"):
        contained(refuse, limits=SMALL)
    from em_bench.board.contained import without_network

    if contained(without_network, limits=SMALL):
        with pytest.raises(Killed, match="OSError|ConnectionRefusedError|TimeoutError"):
            contained(call, limits=SMALL)


def test_an_entry_that_is_killed_has_failed_and_no_other(board, monkeypatch):
    whole = boards.verify_entry

    def verify(folder, *args):
        return die() if folder.name == "lazy" else whole(folder, *args)

    monkeypatch.setattr(boards, "verify_entry", verify)
    made = {r.name: r for r in read_board(board, "v2", "organism").rows}
    assert made["lazy"].status == "failed"
    assert [(c.id, "SIGKILL" in c.detail) for c in made["lazy"].checks] == [("entry.limits", True)]
    assert made["adamw"].status == "self-reported" == made["better"].status
