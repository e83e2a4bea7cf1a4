"""Processes of a run, one a GPU, that stay for the next run: each keeps its share of the base.

worker.py -> python -m em_bench.sweep.engine.torchrun agent ... (torchrun) -> python -m em_bench.sweep.engine.ranks SOCKET, one a GPU;
the first of them is told the jobs through the socket, and tells the others.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from em_bench.parent_death import tether
from em_bench.sweep.engine.job import do
from em_bench.sweep.engine.torchrun import command, rank_environment
from em_bench.sweep.jobs import Job, job_folder, read_order

PATIENCE_S = 900.0  # until all ranks have imported torch and found each other


class Ranks:
    """At most one torchrun. Where one of its processes ends, all do, and the next job has new ones."""

    def __init__(self) -> None:
        self._line: socket.socket | None = None
        self._torchrun: subprocess.Popen | None = None

    def run(self, job: Job) -> int:
        """Do a job on as many processes as it has GPUs; returns an exit status."""
        said = b""
        try:
            line = self._line or self._begin(job)
            line.send(job.id.encode())
            said = line.recv(1)
        except OSError:
            pass  # they ended; their last words are in the job's log
        if said != b"\0":
            self._end()
        return said[0] if said else 1

    def _begin(self, job: Job) -> socket.socket:
        path = Path(f".ranks-{os.getpid()}.sock")  # from inside the work folder, as the forkserver's
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(str(path))
            listening.listen(1)
            listening.settimeout(1.0)
            script = ["-m", "em_bench.sweep.engine.ranks", str(path)]
            self._torchrun = subprocess.Popen(command(job, os.environ, script), env=rank_environment(job))
            for _ in range(int(PATIENCE_S)):
                try:
                    self._line, _ = listening.accept()
                    self._line.settimeout(None)
                    return self._line
                except TimeoutError:
                    if self._torchrun.poll() is not None:
                        break
        raise ConnectionError("the ranks ended before they began")

    def _end(self) -> None:
        if self._line:
            self._line.close()
        if self._torchrun:
            self._torchrun.kill()  # its processes are tethered to it
            self._torchrun.wait()
        self._line = self._torchrun = None


def stay(path: Path) -> int:
    """One rank: do every job that the first is told, until one fails or the line is closed."""
    from em_bench.training.processes import leave, processes

    peers = processes()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        if peers.first:
            line.connect(str(path))
        while job_id := peers.agree(lambda: line.recv(4096).decode()):
            with open(job_folder(Path(), read_order(Path(), job_id).job) / "log.txt", "ab") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            if code := do(job_id):
                return code  # torchrun ends the others, wherever they are
            peers.agree(lambda: line.send(b"\0"))
    leave()
    return 0


if __name__ == "__main__":
    tether(os.getppid())
    sys.exit(stay(Path(sys.argv[1])))
