"""Jobs without their start-up. Importing torch, PEFT and lm-eval takes a process longer than training an organism, so on one
machine a tethered process imports them once and forks for every job that asks; the fork dies with whoever asked.

    job_process.py  --socket WORK/.warm.sock: work folder, job id, its stdout and stderr-->  this process, which forks
    job_process.py  <--------------------------- one byte: the exit status ----------------  the fork
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from em_bench.sweep.engine.parent_death import tether

SOCKET = ".warm.sock"  # used from inside the work folder: a socket's path is at most 108 characters long


def ask(job_id: str) -> int | None:
    """Have the work folder's warm process run a job; its exit status, or None where there is no such process.

    Called in the work folder. Blocks until the job has ended.
    """
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(SOCKET)
        except OSError:
            return None
        socket.send_fds(asked, [job_id.encode()], [1, 2])
        answer = asked.recv(1)
    return answer[0] if answer else 1


def serve(run: Callable[[str], int], warm_up: Callable[[], None]) -> None:
    """Fork for every job id that is sent to the socket of the current folder, and answer with what `run` returns."""
    Path(SOCKET).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(SOCKET)
        listening.listen(64)  # before warming up: who asks meanwhile waits for it here and not for his own imports
        warm_up()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the forks' statuses go to those who asked
        here = os.getpid()
        while True:
            asking, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                tether(here)
                _answer(asking, run)
            asking.close()


def _answer(asking: socket.socket, run: Callable[[str], int]) -> None:
    message, fds, _, _ = socket.recv_fds(asking, 4096, 2)
    for fd, stream in zip(fds, (1, 2), strict=True):
        os.dup2(fd, stream)
        os.close(fd)
    threading.Thread(target=_end_with, args=(asking,), daemon=True).start()
    code = 1
    try:
        code = run(message.decode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asking.send(bytes([code]))
        os._exit(code)


def _end_with(asking: socket.socket) -> None:
    asking.recv(1)  # nothing is ever sent: it returns when the other side is gone
    os._exit(1)


if __name__ == "__main__":  # python -m em_bench.sweep.engine.forkserver PARENT-PID, in the work folder
    tether(int(sys.argv[1]))
    from em_bench.code_digest import check_loaded
    from em_bench.sweep.engine.torchrun import run_here

    def _imports() -> None:
        import em_bench.sweep.evaluating
        import em_bench.sweep.training  # noqa: F401

        check_loaded()

    serve(run_here, _imports)
