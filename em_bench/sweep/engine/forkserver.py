"""Jobs without their start-up. Importing torch, PEFT and lm-eval takes a process longer than training an organism, and loading a
large base longer still. On one machine a tethered process therefore imports them once and forks for every job on a CPU that asks, and
keeps a worker for every base on GPUs, which loads it once and does one job after another (worker.py).

    job_process.py  --socket WORK/.warm.sock: what it asks, its stdout and stderr-->  this process  --> a fork, or the base's worker
    job_process.py  <--------------------------- one byte: the exit status ----------------------------  which does the job
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from em_bench.parent_death import tether
from em_bench.records import Record
from em_bench.sweep.engine.gpu_lease import DEVICES

SOCKET = ".warm.sock"  # used from inside the work folder: a socket's path is at most 108 characters long
WORKER = (sys.executable, "-m", "em_bench.sweep.engine.worker")
FIT = b"+"  # what a worker says after a job that leaves it fit for another
IDLE_S = 60.0  # without a job a worker keeps its base and its GPUs no longer


class Request(Record):
    """What a job's process asks."""

    job: str
    worker: str | None = Field(
        default=None, description="what a worker has in memory that does this job; None: a fork of its own"
    )
    gpus: int = 0
    threads: int = 1


@dataclass
class Worker:
    """A process that keeps a base on its GPUs. queue: jobs go in, a byte comes out after each."""

    key: str
    gpus: int
    queue: socket.socket
    busy: bool = False
    since: float = field(default_factory=time.monotonic)


def ask(request: Request) -> int | None:
    """Have the work folder's warm process see to a job; its exit status, or None where there is no such process.

    Called in the work folder. Blocks until the job has ended.
    """
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(SOCKET)
        except OSError:
            return None
        socket.send_fds(asked, [request.model_dump_json().encode()], [1, 2])
        answer = asked.recv(1)
    return answer[0] if answer else 1


def serve(run: Callable[[str], int], warm_up: Callable[[], None], worker: Sequence[str] = WORKER) -> None:
    """Fork, or send to a worker (`worker` PARENT-PID QUEUE-FD), for every request to the socket of the current folder."""
    Path(SOCKET).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(SOCKET)
        listening.listen(64)  # before warming up: who asks meanwhile waits for it here and not for his own imports
        warm_up()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the children's statuses go to those who asked
        workers = _Workers(worker)
        while True:
            if not workers.wait(listening):
                continue
            asking, _ = listening.accept()
            message, fds, _, _ = socket.recv_fds(asking, 4096, 2)
            if not message:
                pass
            elif (request := Request.model_validate_json(message)).worker:
                workers.send(request, message, [*fds, asking.fileno()])
            else:
                _fork(run, request.job, asking, fds, listening)
            for fd in fds:
                os.close(fd)
            asking.close()


class _Workers:
    """The workers that there are, and who does what."""

    def __init__(self, command: Sequence[str]):
        self.command, self.all = command, list[Worker]()
        self.devices = len(os.environ.get(DEVICES, "").split(",")) if os.environ.get(DEVICES) else 0

    def wait(self, listening: socket.socket) -> bool:
        """Wait for somebody to ask, for a moment at most; note who is idle, gone, or idle for too long."""
        ready, _, _ = select.select([listening, *(w.queue for w in self.all)], [], [], 1.0)
        for w in [w for w in self.all if w.queue in ready]:
            said = b""
            with suppress(OSError):
                said = w.queue.recv(1)
            if said == FIT:
                w.busy, w.since = False, time.monotonic()
            else:
                self.end(w)
        for w in [w for w in self.all if not w.busy and time.monotonic() - w.since > IDLE_S]:
            self.end(w)
        return listening in ready

    def send(self, request: Request, message: bytes, fds: list[int]) -> None:
        """To an idle worker that has what the job needs, or to a new one, for which idle ones of others make room."""
        idle = sorted((w for w in self.all if not w.busy), key=lambda w: w.since)
        for mine in [w for w in idle if w.key == request.worker]:
            mine.busy = True
            with suppress(OSError):  # it died this moment
                socket.send_fds(mine.queue, [message], fds)
                return
            self.end(mine)
        for w in idle:
            if w in self.all and sum(w.gpus for w in self.all) + request.gpus > self.devices:
                self.end(w)
        new = self.begin(request)
        new.busy = True
        socket.send_fds(new.queue, [message], fds)

    def begin(self, request: Request) -> Worker:
        """Not forked: CUDA, once it was touched, does not work in a fork."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "OMP_NUM_THREADS": str(request.threads)}
        command = [*self.command, str(os.getpid()), str(its.fileno())]
        subprocess.Popen(command, env=environment, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
        its.close()
        self.all.append(Worker(request.worker or "", request.gpus, ours))
        return self.all[-1]

    def end(self, worker: Worker) -> None:
        """A worker whose queue is closed ends."""
        worker.queue.close()
        self.all.remove(worker)


def _fork(run: Callable[[str], int], job: str, asking: socket.socket, fds: Sequence[int], listening: socket.socket) -> None:
    here = os.getpid()
    if os.fork() == 0:
        listening.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        tether(here)
        code = 1
        try:
            code = answered(run, job, asking, fds)
        finally:
            os._exit(code)


def answered(
    run: Callable[[str], int],
    job: str,
    asking: socket.socket,
    fds: Sequence[int],
    before: Callable[[int], None] = lambda code: None,
) -> int:
    """Do a job with stdout and stderr of those who ask, and tell them its exit status, after `before`. This process ends if they are gone earlier."""
    for fd, stream in zip(fds, (1, 2), strict=True):
        os.dup2(fd, stream)
    done = threading.Event()
    threading.Thread(target=_end_with, args=(asking, done), daemon=True).start()
    code = 1
    try:
        code = run(job)
    except SystemExit as e:  # told to end, its state saved
        code = e.code if isinstance(e.code, int) else 1
    finally:
        done.set()
        sys.stdout.flush()
        sys.stderr.flush()
        with suppress(OSError):
            before(code)
            asking.send(bytes([code]))
            asking.shutdown(socket.SHUT_RDWR)
    return code


def _end_with(asking: socket.socket, done: threading.Event) -> None:
    with suppress(OSError):
        asking.recv(1)  # nothing is ever sent: it returns when the other side is gone
    if not done.is_set():
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
